"""`attnbal doctor`: the environment, a model, a Trainer, and the exit code."""

from __future__ import annotations

import json
import sys

import pytest
from typer.testing import CliRunner

from lightning_attnbal.cli import _environment
from lightning_attnbal.cli._app import app

OWN = """
import torch
from torch import nn

def make():
    return nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 8))

def frozen():
    return make().requires_grad_(False)

def compiled():
    return nn.Sequential(torch.compile(make()), nn.Linear(8, 8))

def batch():
    return torch.randn(8, 8)
"""


def run(*words):
    return CliRunner().invoke(app, ["doctor", *words])


def found(result, section):
    """Subject → (verdict, text) of a section of the JSON."""
    findings = json.loads(result.stdout)[section]
    return {f["subject"]: (f["verdict"], f["text"]) for f in findings}


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A module of the user's in the working folder."""
    (tmp_path / "own_doctor.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    yield "own_doctor"
    sys.modules.pop("own_doctor", None)


def test_environment_alone(monkeypatch):
    version = _environment._version
    monkeypatch.setattr(_environment, "_version", lambda p: None if p == "ray" else version(p))
    result = run("--json")
    assert result.exit_code == 0, result.output
    data = json.loads(result.stdout)
    assert (data["is_refused"], data["model"], data["trainer"]) == (False, [], [])
    environment = found(result, "environment")
    assert {"python", "torch", "lightning", "CPU", "GPU", "threads"} <= environment.keys()
    verdict, text = environment["ray"]
    assert verdict == "note"
    assert 'pip install "lightning-attnbal[ray]"' in text
    assert environment["transformers"][0] == "fine"


def test_a_model_and_a_batch_say_what_can_be_done(own):
    result = run(f"{own}:make", "--batch", f"{own}:batch", "--json")
    assert result.exit_code == 0, result.output
    model = found(result, "model")
    assert model["units"] == ("fine", "3 found: 2 block, 1 head.")
    assert model["caching"] == ("fine", "A frozen prefix can be cached, up to 2.")
    assert found(result, "trainer")["Trainer"][0] == "fine"


def test_table_is_plain_in_a_pipe(own):
    result = run(f"{own}:make", "--shape", "4,8")
    assert result.exit_code == 0, result.output
    assert "\x1b" not in result.stdout
    assert result.stdout.splitlines()[0] == "Environment"
    assert "The balancer would not refuse this run." in result.stdout


@pytest.mark.parametrize(
    ("model", "section", "subject", "text"),
    [
        ("frozen", "model", "parameters", "0 of 216 parameters may train"),
        ("compiled", "trainer", "Trainer", "found torch.compile's wrapper"),
    ],
)
def test_a_model_that_is_refused_is_exit_code_1(own, model, section, subject, text):
    result = run(f"{own}:{model}", "--batch", f"{own}:batch", "--json")
    assert result.exit_code == 1, result.output
    verdict, why = found(result, section)[subject]
    assert verdict == "refused"
    assert text in why
    assert json.loads(result.stdout)["is_refused"] is True


@pytest.mark.parametrize(
    ("options", "code", "text"),
    [
        ("accumulate_grad_batches=4 precision=bf16-mixed devices=1", 0, "precision bf16-mixed"),
        ("min_epochs=2 max_epochs=3", 1, "`min_epochs` and `min_steps` to be unset"),
        ("accelerator=cuda", 1, "Lightning refuses it here"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_a_trainer_is_judged_as_a_fit_would(options, code, text):
    result = run("--trainer", f"{options} default_root_dir=.", "--json")
    if "cuda" in options and result.exit_code == 0:
        pytest.skip("there is a GPU")
    assert result.exit_code == code, result.output
    assert text in found(result, "trainer")["Trainer"][1]


def test_an_endless_run_is_a_limit():
    result = run("--trainer", "max_epochs=-1", "--trainer", "devices=1", "--json")
    assert result.exit_code == 0, result.output
    verdict, text = found(result, "trainer")["budget"]
    assert verdict == "limited"
    assert "`max_epochs` or `max_steps`" in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--trainer", "strategyy=ddp"], "unexpected keyword argument 'strategyy'"),
        (["--trainer", "strategy=dpp"], "dpp"),
        (["--trainer", "ddp"], "Expected `--trainer` to be key=value, but got 'ddp'"),
        (["no_such_module:make"], "No module named 'no_such_module'"),
        (["torch.nn:ReLU", "--shape", "x"], "Expected `--shape` to be positive integers"),
        (["own_doctor:make", "--shape", "4,7"], "shapes cannot be multiplied"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_usage_is_one_line_and_exit_code_2(own, words, message):
    result = run(*words)
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


def test_help_warns_that_code_runs():
    assert "RUNS THEIR CODE" in " ".join(run("--help").stdout.split())
