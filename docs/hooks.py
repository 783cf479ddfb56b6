"""What the site takes from the repository: method cards, pictures, sections of the README, the API.

Files keep their place under the root of the site, so the links between them hold.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from itertools import chain
from pathlib import Path

from docstrings import as_on_github  # beside this file; mkdocs adds the folder to the path
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
_TAKEN = (
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "docs/*.png",
    "docs/cli/*.svg",
    "lightning_attnbal/**/README.md",
    "recipes/**/*.md",
    "recipes/**/figures/*.png",
)
_README_SECTION = re.compile(r"<!-- README: (.+) -->")
_CODE = re.compile(r"<(a|autoref|pre|h\d)\b.*?</\1>|<code>(\w+)(?:\(\))?</code>", re.DOTALL)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put cards and API pages into the navigation, before its last entry."""
    cards = [
        {".".join(path.parts[path.parts[0] == "lightning_attnbal" : -1]): path.as_posix()}
        for path in _taken()
        if path.name == "README.md"
    ]
    packages = [
        {name.removeprefix("lightning_attnbal."): _page_of(name)} for name in public_names()
    ]
    config.nav[-1:-1] = [{"Methods": ["methods.md", *cards]}, {"API": packages}]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add what lies elsewhere in the repository, and one page per public package."""
    for path in _taken():
        files.append(File.generated(config, path.as_posix(), abs_src_path=str(ROOT / path)))
    for name in public_names():
        files.append(File.generated(config, _page_of(name), content=_reference(name)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001
    """Fill in sections of the README."""
    return as_on_github(_README_SECTION.sub(lambda found: readme_section(found[1]), markdown))


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001
    """Link names of the library, written as code, to their reference."""
    return _CODE.sub(_linked, html)


def readme_section(title: str) -> str:
    """Text of a second-level section of the README, without its heading."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    found = re.search(
        rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", readme, re.DOTALL | re.MULTILINE
    )
    if found is None:
        msg = f"Expected the README to have a section {title!r}, but it has none."
        raise ValueError(msg)
    return found[1]


@cache
def public_names() -> dict[str, tuple[str, ...]]:
    """Package → its `__all__`, read without importing anything."""
    found = {}
    for init in sorted(ROOT.glob("lightning_attnbal/**/__init__.py")):
        package = ".".join(init.parent.relative_to(ROOT).parts)
        for node in ast.parse(init.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
                found[package] = tuple(ast.literal_eval(node.value))
    return found


@cache
def homes() -> dict[str, str]:
    """Public name → the innermost package that lists it, where there is only one."""
    inner: dict[str, set[str]] = {}
    for package, names in public_names().items():
        for name in names:
            others = {p for p in inner.get(name, set()) if not package.startswith(f"{p}.")}
            inner[name] = others | {package}
    packages = public_names()
    return {
        name: package
        for name, found in inner.items()
        for package in found - {"lightning_attnbal"}
        if len(found - {"lightning_attnbal"}) == 1 and name in packages[package]
    }


def _taken() -> Iterator[Path]:
    found = chain.from_iterable(sorted(ROOT.glob(pattern)) for pattern in _TAKEN)
    return (path.relative_to(ROOT) for path in found)


def _page_of(package: str) -> str:
    return f"reference/{package}.md"


def _reference(package: str) -> str:
    """Page of a package: what it defines, and links to what it passes on."""
    own, passed_on = [], []
    for name in public_names()[package]:
        home = homes().get(name, package)
        if home == package:
            own.append(name)
        else:
            passed_on.append(f"[`{name}`][{home}.{name}]")
    page = f"# {package}\n\n::: {package}\n    options:\n      members: {own}\n"
    return page + ("\nAlso here: " + ", ".join(passed_on) + "\n" if passed_on else "")


def _linked(found: re.Match[str]) -> str:
    name = found[2]
    if name is None or name not in homes():
        return found[0]
    return f'<autoref identifier="{homes()[name]}.{name}" optional>{found[0]}</autoref>'
