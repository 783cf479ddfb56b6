"""Every experiment runs on made-up data, leaves what it should, and what it leaves can be used."""

import io
import json
import re
import subprocess
import sys
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from rich.console import Console
from transformers import AutoModel
from typer.testing import CliRunner

from recipes import predict, train
from recipes._common import composing, running
from recipes._common.composing import CONF
from recipes._common.running import outcome_table
from recipes.train import compose_run
from tests.recipes.test_compose import EXPERIMENTS, RECIPES

SMALL = ["data.num_train=32", "data.num_val=8", "data.num_test=16"]
QUIET = ["data=synthetic", *SMALL, "callbacks=none", "logger=none", "trainer.threads=1"]
TINY = {
    "translation": [
        *("model.width=16", "model.ffn=16", "model.encoder_layers=2", "model.decoder_layers=1"),
        *("model.heads=2", "model.vocab_size=400", "model.num_beams=1"),
    ],
    "image": ["model=image_vit", "model.width=16", "model.depth=2", "model.heads=2"],
    "recommendation": ["model.width=8"],
    "text": ["data.max_tokens=12", "data.bucket=4"],
}


@pytest.fixture(autouse=True)
def _encoder(encoder, monkeypatch):
    """The packaged encoder takes seconds a run."""
    monkeypatch.setitem(TINY, "text", [*TINY["text"], f"model.name={encoder}"])


def launched(experiment, out, *overrides):
    recipe = experiment.partition("_")[0]
    config = compose_run(
        [f"experiment={experiment}", *QUIET, "trainer.max_epochs=2", *TINY[recipe], *overrides]
    )
    return config, train.train(config, out)


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_runs(experiment, tmp_path):
    config, outcome = launched(experiment, tmp_path)
    assert set(outcome.headline) == set(config.data.tasks)
    assert all(torch.isfinite(torch.tensor(value)) for value in outcome.judged.values())
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["scores"] == dict(outcome.scores)
    assert (tmp_path / "model" / "recipe.json").is_file()
    assert "<html" in (tmp_path / "report.html").read_text()
    assert outcome.steps > 0


@pytest.mark.parametrize("balancer", sorted(path.stem for path in (CONF / "balancer").iterdir()))
def test_every_balancer_runs(balancer, tmp_path):
    _, outcome = launched("text_balanced", tmp_path, f"balancer={balancer}", "budget=60%")
    assert (outcome.spent == "") == (balancer == "off")
    assert (tmp_path / "model" / "recipe.json").is_file()


def test_the_table_names_tasks_metrics_and_baselines(tmp_path):
    _, outcome = launched("image_short", tmp_path, "baselines=true")
    console = Console(width=160, file=io.StringIO())
    console.print(outcome_table(outcome))
    shown = console.file.getvalue()
    for word in ("this run", "class", "rotation", "macro_f1", *outcome.baselines):
        assert word in shown
    assert f"{outcome.scores['class/accuracy']:.3f}" in shown


class Stops(pl.Callback):
    """As if the machine went down."""

    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch == 1:
            raise RuntimeError("the machine went down")


def test_a_run_that_was_stopped_goes_on_to_the_same_end(tmp_path, monkeypatch):
    exact = ("trainer.precision=32-true", "budget=80%")  # rounding depends on a batch's company
    keep = ("callbacks=default", "callbacks.progress_bar=false", *exact)
    _, expected = launched("text_balanced", tmp_path / "whole", *keep)
    usual = running.make_callbacks
    with monkeypatch.context() as patched:
        patched.setattr(running, "make_callbacks", lambda *of: [*usual(*of), Stops()])
        with pytest.raises(RuntimeError, match="the machine went down"):
            launched("text_balanced", tmp_path / "part", *keep)
    last = tmp_path / "part" / "checkpoints" / "last.ckpt"
    _, resumed = launched("text_balanced", tmp_path / "resumed", *keep, f"ckpt_path={last}")
    assert resumed.steps == expected.steps
    assert resumed.scores == pytest.approx(dict(expected.scores), abs=1e-6)


def test_loggers_write_beside_each_other(tmp_path):
    launched("image_short", tmp_path, "logger=[csv,tensorboard]")
    assert (tmp_path / "metrics.csv").is_file()
    assert list(tmp_path.glob("events.out.tfevents*"))


def test_multirun_runs_each(tmp_path, monkeypatch, capsys):
    sweep = f"hydra.sweep.dir={tmp_path}"
    arguments = ["experiment=image_short,image_balanced", "seed=0,1", *QUIET, *TINY["image"]]
    monkeypatch.setattr(sys, "argv", ["train", "-m", sweep, *arguments, "trainer.max_epochs=1"])
    train.main()
    found = sorted(tmp_path.glob("*/results.json"))
    assert len(found) == 4
    assert len({str(json.loads(path.read_text())["scores"]) for path in found}) >= 2  # seeds
    assert "this run" in capsys.readouterr().out


def test_the_command_line_says_in_one_message_what_is_wrong(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train", "experiment=text_balanced", "data.bach_size=3"])
    with pytest.raises(SystemExit, match=r"(?s)bach_size.*keys of `data`:.*batch_size"):
        train.main()


INPUTS = {
    "translation": ["open the door"],
    "text": ["what a lovely dress"],
    "recommendation": ["1"],
}


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_saved_model_predicts(recipe, tmp_path):
    launched(f"{recipe}_short", tmp_path)
    inputs = INPUTS.get(recipe) or [str(_picture(tmp_path))]
    arguments = [str(tmp_path / "model"), *inputs, "--json", "--top", "2"]
    result = CliRunner().invoke(_app(), arguments)
    assert result.exit_code == 0, result.output
    records = [json.loads(line) for line in result.stdout.splitlines()]
    assert len(records) == len(inputs)
    assert all(records)


def _picture(folder):
    from PIL import Image

    path = folder / "picture.png"
    Image.new("L", (16, 16), 200).save(path)
    return path


def _app():
    import typer

    app = typer.Typer()
    app.command()(predict.predict)
    return app


def test_a_folder_without_a_model_is_refused(tmp_path):
    result = CliRunner().invoke(_app(), [str(tmp_path), "a"])
    assert result.exit_code == 2
    assert "recipe.json" in result.output


def test_a_card_of_an_unknown_recipe_is_refused(tmp_path):
    (tmp_path / "recipe.json").write_text('{"recipe": "os"}')
    with pytest.raises(ValueError, match="Expected the recipe to be one of 'translation'"):
        predict.load_model(tmp_path)


def test_the_saved_text_encoder_loads_in_transformers(tmp_path):
    launched("text_short", tmp_path)
    assert AutoModel.from_pretrained(tmp_path / "model").config.hidden_size == 8


def test_no_recipe_names_a_device():
    """The same command runs on a GPU: devices, pinned memory and workers come from `trainer=`."""
    root = Path(train.__file__).parent
    others = {"benchmarks", "random_state.py"}  # random states are a device's own
    sources = [p for p in root.rglob("*.py") if not others & set(p.parts)]
    named = re.compile(
        r"\.cuda\(|\.cpu\(|[\"']cuda|torch\.device\(|pin_memory=True|num_workers=[1-9]"
    )
    found = {p.name: named.findall(p.read_text(encoding="utf-8")) for p in sources}
    assert {name: hits for name, hits in found.items() if hits} == {}


@pytest.mark.parametrize(
    ("recipe", "num_processes", "parallel"),
    [("image", 1, "off"), ("text", 1, "heads"), ("image", 2, "ranks"), ("text", 2, "ranks")],
)
def test_tasks_share_steps_as_data_and_processes_allow(recipe, num_processes, parallel):
    config = compose_run([f"experiment={recipe}_balanced", *QUIET, *TINY[recipe]])
    data = composing.build(config.data, train.TARGETS)
    data.setup()
    assert running.make_balancer(config, data, num_processes).tasks.parallel == parallel


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES)
def test_the_same_command_runs_on_two_processes(recipe, tmp_path):
    overrides = [
        f"experiment={recipe}_balanced",
        *("budget=60%", "trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2"),
        *(*QUIET, *TINY[recipe], "data.num_train=64", f"paths.out_dir={tmp_path}"),
    ]
    command = [sys.executable, "-m", "recipes.train", *overrides]
    subprocess.run(command, check=True, timeout=300)
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["steps"] > 0
    assert all(torch.isfinite(torch.tensor(value)) for value in results["scores"].values())


@pytest.mark.gpu
@pytest.mark.parametrize("recipe", RECIPES)
def test_the_same_command_runs_on_a_gpu(recipe, tmp_path):
    config, outcome = launched(f"{recipe}_balanced", tmp_path, "trainer=gpu", "data.num_workers=0")
    assert str(config.trainer.precision) == "bf16-mixed"
    assert outcome.steps > 0


@pytest.mark.gpu
@pytest.mark.parametrize("recipe", RECIPES)
def test_the_same_command_runs_with_ddp(recipe, tmp_path):
    _, outcome = launched(f"{recipe}_balanced", tmp_path, "trainer=ddp", "trainer.devices=1")
    assert outcome.steps > 0
