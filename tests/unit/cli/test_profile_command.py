"""`attnbal profile`: tables, JSON, and one clear line for bad input."""

from __future__ import annotations

import json
import sys

import pytest
from typer.testing import CliRunner

from lightning_attnbal.cli import main
from lightning_attnbal.cli._app import app

QUICK = ["--no-seconds", "--json"]


def run(*words):
    return CliRunner().invoke(app, ["profile", *words])


def test_import_path():
    result = run(
        "torch.nn:Linear",
        "--arg",
        "in_features=8",
        "--arg",
        "out_features=4",
        "--shape",
        "2,8",
        *QUICK,
    )
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["flops"] == 2 * 2 * 2 * 8 * 4


@pytest.mark.parametrize("model_type", ["bert", "t5"])
def test_hugging_face_type(model_type):
    sizes = {
        "bert": (
            "num_hidden_layers=2",
            "hidden_size=32",
            "num_attention_heads=2",
            "intermediate_size=64",
        ),
        "t5": ("num_layers=2", "d_model=32", "d_kv=8", "num_heads=2", "d_ff=64"),
    }
    options = [word for size in (*sizes[model_type], "vocab_size=50") for word in ("--arg", size)]
    result = run(f"hf:{model_type}", "--tokens", "2,8", *options, *QUICK)
    assert result.exit_code == 0, result.output
    names = [load["unit"]["name"] for load in json.loads(result.stdout)["loads"]]
    assert (
        sum("layer." in name or "block." in name for name in names)
        == {"bert": 2, "t5": 4}[model_type]
    )


def test_config_file_and_task_class(tmp_path):
    config = {
        "model_type": "distilbert",
        "n_layers": 2,
        "dim": 32,
        "n_heads": 2,
        "hidden_dim": 64,
        "vocab_size": 50,
    }
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config))
    words = ["--tokens", "2,8", "--hf-class", "AutoModelForSequenceClassification", *QUICK]
    result = run(str(path), *words)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["model"] == "DistilBertForSequenceClassification"


def test_table_with_seconds_from_a_module_in_the_working_folder(tmp_path, monkeypatch):
    (tmp_path / "own_model.py").write_text(
        "from torch import nn\nmodel = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))\n"
    )
    monkeypatch.chdir(tmp_path)
    result = run("own_model:model", "--shape", "4,8", "--repeats", "1")
    monkeypatch.delitem(sys.modules, "own_model")
    assert result.exit_code == 0, result.output
    assert "Cognitive load of Sequential" in result.stdout
    assert "critical path" in result.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["torch.nn"], "Expected one of|Expected TARGET"),
        (["torch.nn:Linnear", "--shape", "2,8"], "Expected 'torch.nn' to have 'Linnear'"),
        (["no_such_package:model", "--shape", "2,8"], "No module named 'no_such_package'"),
        (["builtins:dict", "--shape", "2,8"], "make a torch.nn.Module, but got dict"),
        (["torch.nn:Linear", "--shape", "2,8"], "missing 2 required positional arguments"),
        (["hf:bertt", "--tokens", "2,8"], "a Hugging Face model type such as 'bert'"),
        (["hf:bert", "--tokens", "2,8", "--hf-class", "Nope"], "Expected `--hf-class`"),
        (["missing.json", "--tokens", "2,8"], "No such file"),
        (["torch.nn:ReLU", "--shape", "2,x"], "Expected `--shape` to be positive integers"),
        (["torch.nn:ReLU", "--tokens", "2,8"], "an embedding; use `--shape`"),
        (["torch.nn:ReLU"], "Expected one of `--shape` and `--tokens`"),
        (["torch.nn:ReLU", "--arg", "inplace", "--shape", "2"], "key=value, but got 'inplace'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_is_one_line_and_exit_code_2(words, message):
    import re

    result = run(*words)
    assert result.exit_code == 2
    assert re.search(message, result.stderr)
    assert result.stderr.count("\n") == 1


def test_unknown_optimizer_and_wrong_input_size():
    linear = ["torch.nn:Linear", "--arg", "in_features=8", "--arg", "out_features=4"]
    assert "class in torch.optim" in run(*linear, "--shape", "2,8", "--optimizer", "Adm").stderr
    assert "shapes cannot be multiplied" in run(*linear, "--shape", "2,7").stderr


def test_help_warns_that_code_runs():
    assert "RUNS ITS CODE" in " ".join(run("--help").stdout.split())


def test_missing_typer_is_named(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "typer", None)
    for name in ("lightning_attnbal.cli._app",):
        monkeypatch.delitem(sys.modules, name, raising=False)
    with pytest.raises(SystemExit, match="2"):
        main()
    assert 'pip install "lightning-attnbal[cli]"' in capsys.readouterr().err
