"""The notebooks run from top to bottom, as they are, and show their pictures."""

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[2]
PICTURES = {
    "multitask": {"image/png": 2},
    "own_module": {"image/png": 1},
    "quickstart": {"image/png": 1},
    "reading_a_report": {"text/html": 1},
}
NAMES = sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb"))


def read(name):
    return nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)


def outputs(notebook, kind):
    """What cells showed in a format, all of it."""
    shown = (out for cell in notebook.cells for out in cell.get("outputs", ()))
    return [out["data"][kind] for out in shown if kind in out.get("data", {})]


def test_every_notebook_has_its_pictures_named_here():
    assert set(PICTURES) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_notebook_is_clean_and_starts_with_the_install_line(name):
    notebook = read(name)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert notebook.metadata.kernelspec.name == "python3"
    assert code[0].source.startswith("# %pip install")
    assert [cell.outputs for cell in code] == [[]] * len(code)
    assert [cell.execution_count for cell in code] == [None] * len(code)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", NAMES)
def test_notebook_runs(name):
    notebook = read(name)
    folder = ROOT / "notebooks"
    files = set(folder.iterdir())
    where = {"metadata": {"path": str(folder)}}
    NotebookClient(notebook, timeout=240, resources=where).execute()
    assert set(folder.iterdir()) == files  # what it writes goes elsewhere
    for kind, count in PICTURES[name].items():
        large = [shown for shown in outputs(notebook, kind) if len(shown) > 10_000]
        assert len(large) == count
        assert not any(re.search(r"(?:src|href)=[\"']https?://", shown) for shown in large)
