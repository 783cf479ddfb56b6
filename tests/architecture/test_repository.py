"""What the files of the repository may say."""

import re
from itertools import chain
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("lightning_attnbal", "recipes", "conf", "tests", "notebooks", "docs", ".ci")
TEXT = {".py", ".yaml", ".md", ".toml", ".ipynb", ".json", ".html", ""}


def repository_files():
    """Text files under version control, but this one, which spells the patterns out."""
    tree = chain.from_iterable((ROOT / folder).rglob("*") for folder in FOLDERS)
    for path in chain(tree, ROOT.glob("*")):
        hidden = "__pycache__" in path.parts or path == Path(__file__)
        if path.is_file() and path.suffix in TEXT and not hidden:
            yield path


@pytest.mark.parametrize(
    "pattern",
    [
        pytest.param(r"(?<![\w.~}])/(?:home|Users|root|work|opt|mnt)/\w", id="machine path"),
        pytest.param(r"[A-Z]:\\\\?\w+\\", id="drive path"),
        pytest.param(r"pypi\.org|pythonhosted\.org|download\.pytorch\.org", id="package index"),
        pytest.param(r"--(?:extra-)?index-url|--find-links", id="package index option"),
    ],
)
def test_no_file_ties_the_project_to_a_machine_or_an_index(pattern):
    found = [
        f"{path.relative_to(ROOT)}: {match[0]}"
        for path in repository_files()
        for match in re.finditer(pattern, path.read_text(encoding="utf-8"))
    ]
    assert found == []


def test_no_unfinished_business():
    marker = re.compile(r"\b(?:TODO|FIXME|XXX)\b|raise NotImplementedError\b(?!.*abstract)")
    found = [
        str(path.relative_to(ROOT))
        for path in repository_files()
        if path.suffix == ".py" and marker.search(path.read_text(encoding="utf-8"))
    ]
    assert found == []


def test_notebooks_carry_no_outputs():
    import nbformat

    for path in (ROOT / "notebooks").glob("*.ipynb"):
        notebook = nbformat.read(path, as_version=4)
        code = [cell for cell in notebook.cells if cell.cell_type == "code"]
        assert [cell.outputs for cell in code] == [[]] * len(code), path
        assert [cell.execution_count for cell in code] == [None] * len(code), path
