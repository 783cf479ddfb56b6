"""The notebooks run from top to bottom."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", ["quickstart"])
def test_notebook_runs(name, encoder, tmp_path):
    notebook = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
    settings = next(cell for cell in notebook.cells if "settings" in cell.metadata.get("tags", ()))
    settings.source = (
        'overrides = ["data=synthetic", "data.num_train=96", "data.num_val=8", "data.num_test=8", '
        f'"data.batch_size=4", "data.max_tokens=8", '
        f'"encoder={encoder.as_posix()}", "out_dir={tmp_path.as_posix()}"]'
    )
    NotebookClient(
        notebook, timeout=240, resources={"metadata": {"path": str(ROOT / "notebooks")}}
    ).execute()
    assert (tmp_path / "plan.png").is_file()
