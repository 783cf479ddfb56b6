"""`attnbal plan`: tables, JSON, a picture, and one clear line for bad input."""

from __future__ import annotations

import json
import math
import re
import sys

import pytest
from typer.testing import CliRunner

from lightning_attnbal.cli._app import app

LINEAR = ["torch.nn:Linear", "--arg", "in_features=8", "--arg", "out_features=4", "--shape", "4,8"]
RUN = ["--steps-per-epoch", "50", "--epochs", "4"]
OWN = """
import torch
from torch import nn

def make():
    return nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 8))

def batch():
    return torch.randn(8, 8), torch.randint(2, (8,))

fixed = (torch.ones(8, 8), torch.zeros(8, dtype=torch.long))

def loss(model, batch):
    return nn.functional.cross_entropy(model(batch[0]), batch[1])

def output(model, batch):
    return model(batch[0])
"""


def run(*words):
    return CliRunner().invoke(app, ["plan", *words])


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A module of the user's in the working folder."""
    (tmp_path / "own_plan.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    yield ["own_plan:make", "--batch", "own_plan:batch", *RUN]
    sys.modules.pop("own_plan", None)


def test_json_holds_every_budget(own):
    result = run(
        *own, "--forward", "own_plan:loss", "--json", "--budget", "20%", "--budget", "1GFLOP"
    )
    assert result.exit_code == 0, result.output
    data = json.loads(result.stdout)
    assert [b["budget"] for b in data["budgets"]] == ["20% of the full run", "1 GFLOP"]
    assert data["contributions_are"] == "measured on two batches"
    assert data["loss"] == pytest.approx(math.log(8), abs=0.5)


def test_default_budgets_and_the_same_answer_twice(own):
    first, second = (run(*own, "--forward", "own_plan:loss", "--json") for _ in range(2))
    assert first.stdout == second.stdout
    limits = [b["limit"] for b in json.loads(first.stdout)["budgets"]]
    assert [limit / limits[-1] for limit in limits] == pytest.approx([0.1, 0.25, 0.5, 1.0])


def test_table_is_plain_in_a_pipe_and_says_what_it_rests_on(own):
    result = run(*own, "--forward", "own_plan:output", "--budget", "25%", "--pretrained")
    assert result.exit_code == 0, result.output
    assert "Contributions are equal for all units: the forward pass gave a tensor" in result.stdout
    assert "Budget 25% of the full run = " in result.stdout
    assert "\x1b" not in result.stdout
    assert "─" not in result.stdout
    assert re.search(r"^ *▶", result.stdout, re.MULTILINE)


def test_all_shows_the_whole_frontier(own):
    words = [*own, "--forward", "own_plan:loss", "--budget", "25%", "--pretrained"]
    short, whole = run(*words).stdout, run(*words, "--all").stdout
    points = json.loads(run(*words, "--json").stdout)["budgets"][0]["points"]
    assert sum("±" in line and "%" in line for line in whole.splitlines()) >= len(points)
    assert len(short.splitlines()) <= len(whole.splitlines())


def test_pretrained_or_from_scratch_decides_what_is_new(own):
    words = [*own, "--forward", "own_plan:loss", "--json", "--budget", "25%"]
    fresh = [
        json.loads(run(*words, *more).stdout)["fresh"]
        for more in ([], ["--pretrained"], ["--from-scratch"])
    ]
    assert fresh[1] == ["head"]
    assert len(fresh[2]) == 3
    assert fresh[0] == fresh[2]


def test_two_batches_by_name(own):
    result = run(*own, "--batch", "own_plan:fixed", "--forward", "own_plan:loss", "--json")
    assert result.exit_code == 0, result.output


def test_random_inputs_and_time_budget():
    result = run(*LINEAR, *RUN, "--budget", "10s", "--json")
    assert result.exit_code == 0, result.output
    (budget,) = json.loads(result.stdout)["budgets"]
    assert (budget["unit"], budget["limit"]) == ("s", 10.0)


def test_hugging_face_type_by_tokens():
    sizes = ("num_hidden_layers=2", "hidden_size=32", "num_attention_heads=2")
    sizes = (*sizes, "intermediate_size=64", "vocab_size=50")
    options = [word for size in sizes for word in ("--arg", size)]
    result = run("hf:bert", "--tokens", "4,8", *options, *RUN, "--pretrained", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["model"] == "BertModel"


def test_plot_is_drawn(own, tmp_path):
    path = tmp_path / "forecast.png"
    result = run(*own, "--forward", "own_plan:loss", "--plot", str(path))
    assert result.exit_code == 0, result.output
    assert path.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["torch.nn:ReLU"], "Expected one of `--shape`, `--tokens` and `--batch`"),
        ([*LINEAR, "--budget", "300%"], r"`budget` to be in \(0, 1\]"),
        ([*LINEAR, "--budget", "soon"], "`budget` to be a number with a unit"),
        ([*LINEAR, "--budget", "2 FLOP"], "to be at least .* from 2 FLOP"),
        ([*LINEAR, "--memory", "3 h"], "`memory` to be in bytes"),
        ([*LINEAR, "--batch", "torch.nn:Linear"], "no `--shape` or `--tokens` beside it"),
        ([*LINEAR, "--forward", "torch"], "Expected `--forward` to be 'package.module:name'"),
        ([*LINEAR, "--forward", "torch:nope"], "Expected 'torch' to have 'nope'"),
        ([*LINEAR, "--forward", "torch:pi"], "`--forward` to name a function, but got a float"),
        (["torch.nn:ReLU", "--batch", "no_such:batch"], "`--batch` to be importable"),
        ([*LINEAR, "--optimizer", "Adm"], "class in torch.optim"),
        ([*LINEAR, "--plot", "no/such/folder/x.png"], "No such file or directory"),
        ([*LINEAR, "--plot", "picture.docx"], "docx.* is not supported"),
    ],
    ids=lambda value: " ".join(value[-2:]) if isinstance(value, list) else "",
)
def test_bad_input_is_one_line_and_exit_code_2(words, message):
    result = run(*words, *RUN)
    assert result.exit_code == 2
    assert re.search(message, result.stderr)
    assert result.stderr.count("\n") == 1


def test_the_run_has_to_be_named():
    result = run(*LINEAR, "--epochs", "3")
    assert result.exit_code == 2
    assert "steps-per-epoch" in result.stderr
    assert "`epochs` to be in [1, inf)" in run(*LINEAR, *RUN[:2], "--epochs", "0").stderr


def test_a_plot_without_matplotlib_names_the_extra(own, monkeypatch):
    monkeypatch.setattr("lightning_attnbal.planning._plot.find_spec", lambda name: None)
    result = run(*own, "--forward", "own_plan:loss", "--plot", "x.png")
    assert result.exit_code == 2
    assert "lightning-attnbal[plot]" in result.stderr


def test_help_warns_that_code_runs():
    assert "RUNS THEIR CODE" in " ".join(run("--help").stdout.split())
