"""The documentation: its examples run, it builds without a warning, and loads nothing foreign."""

import doctest
import re
import subprocess
import sys
from html.parser import HTMLParser
from importlib import import_module
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from tests.architecture.test_docs import PACKAGES

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs" / "pages").glob("*.md"))
BLOCK = re.compile(r"^```(python|pycon)\n(.*?)^```", re.DOTALL | re.MULTILINE)
WITH_CODE = [page for page in PAGES if BLOCK.search(page.read_text(encoding="utf-8"))]


LOADING = {"script": "src", "link": "href", "img": "src", "iframe": "src", "source": "src"}


class Links(HTMLParser):
    """What a page loads, what it links to, and which anchors it has."""

    def __init__(self, text):
        super().__init__()
        self.loads, self.links, self.anchors = [], [], set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.anchors.update(values[key] for key in ("id", "name") if key in values)
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        if LOADING.get(tag) in values:
            self.loads.append(values[LOADING[tag]])


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Folder of the built site."""
    pytest.importorskip("mkdocs", reason="mkdocs is not installed; it comes with the extra `docs`")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict"]
    options = ["--config-file", str(ROOT / "docs" / "mkdocs.yml"), "--site-dir", str(folder)]
    done = subprocess.run([*command, *options], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def pages(site):
    """Path → what the page refers to; the page for wrong addresses has no place of its own."""
    found = (path for path in sorted(site.rglob("*.html")) if path.name != "404.html")
    return {path: Links(path.read_text(encoding="utf-8")) for path in found}


@pytest.mark.parametrize("page", WITH_CODE, ids=lambda page: page.stem)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_examples_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {"__name__": page.stem}
    text = page.read_text(encoding="utf-8")
    for block in BLOCK.finditer(text):
        lines_before = text.count("\n", 0, block.start(2))
        if block[1] == "python":
            exec(compile("\n" * lines_before + block[2], str(page), "exec"), names)
        else:
            run_doctest(block[2], names, str(page), lines_before)


def run_doctest(code, names, where, line):
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE | doctest.IGNORE_EXCEPTION_DETAIL
    said = []
    runner = doctest.DocTestRunner(optionflags=flags)
    test = doctest.DocTestParser().get_doctest(code, names, where, where, line)
    runner.run(test, out=said.append, clear_globs=False)
    names.update(test.globs)
    assert runner.failures == 0, "".join(said)


def test_no_page_loads_anything_from_elsewhere(site, pages):
    foreign = [
        (path.name, address)
        for path, page in pages.items()
        for address in page.loads
        if urlsplit(address).scheme not in ("", "data") or urlsplit(address).netloc
    ]
    styles = [p.read_text(encoding="utf-8") for p in (*site.rglob("*.css"), *site.rglob("*.svg"))]
    loaded = re.compile(r"(?:@import\s*|url\(\s*)[\"']?(?:https?:)?//")
    assert (foreign, [text[:80] for text in styles if loaded.search(text)]) == ([], [])


def test_internal_links_lead_somewhere(site, pages):
    missing = []
    for path, page in pages.items():
        for address in (*page.links, *page.loads):
            parts = urlsplit(address)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            known = pages[target].anchors if target in pages else set()
            is_there = target.is_file() and (not parts.fragment or unquote(parts.fragment) in known)
            missing += [] if is_there else [(path.name, address)]
    assert missing == []


@pytest.mark.parametrize("package", ["", *PACKAGES])
def test_reference_shows_every_public_name(package, pages, site):
    module = import_module(f"lightning_attnbal.{package}".rstrip("."))
    page = pages[site / "reference" / f"{module.__name__}.html"]
    shown = page.anchors | {urlsplit(link).fragment for link in page.links}
    names = {name.rpartition(".")[2] for name in shown if name.startswith("lightning_attnbal")}
    assert [name for name in module.__all__ if name not in names] == []


def test_every_method_card_is_part_of_the_site(pages, site):
    cards = [*ROOT.glob("lightning_attnbal/**/README.md"), *ROOT.glob("recipes/**/README.md")]
    missing = [
        card for card in cards if site / card.parent.relative_to(ROOT) / "index.html" not in pages
    ]
    assert missing == []
