"""Who may import whom, and what an import loads."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import lightning_attnbal

ROOT = Path(__file__).parents[2]
HEAVY = ("lightning", "torch", "transformers", "matplotlib")


def loaded_by(statement: str) -> list[str]:
    """Which heavy packages a fresh interpreter has loaded after `statement`."""
    report = f"import json, sys; print(json.dumps([m for m in {HEAVY} if m in sys.modules]))"
    code = f"{statement}; {report}"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


def test_import_contracts_hold():
    """In a process of its own: import-linter switches off the loggers of the one it runs in."""
    code = (
        "from importlinter.cli import lint_imports; raise SystemExit(lint_imports(no_cache=True))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    "statement",
    [
        "import lightning_attnbal",
        "import lightning_attnbal.core",
        "import lightning_attnbal.allocate",
        "from lightning_attnbal import Budget, Plan, solve",
        "import lightning_attnbal; dir(lightning_attnbal)",
    ],
)
def test_light_imports_load_neither_torch_nor_lightning(statement):
    assert loaded_by(statement) == []


def test_measuring_and_applying_load_no_trainer():
    assert loaded_by("import lightning_attnbal.measure, lightning_attnbal.apply") == ["torch"]


def test_root_lists_every_public_name():
    assert set(lightning_attnbal.__all__) <= set(dir(lightning_attnbal))


@pytest.mark.parametrize("name", lightning_attnbal.__all__)
def test_root_name_is_the_public_name_of_its_package(name):
    value = getattr(lightning_attnbal, name)
    package = sys.modules[".".join(value.__module__.split(".")[:2])]
    assert value is getattr(package, name)
    assert name in package.__all__


def test_unknown_root_name_is_refused():
    with pytest.raises(AttributeError, match="has no attribute 'Balancer'"):
        lightning_attnbal.Balancer  # noqa: B018
