"""What W&B and TensorBoard hold of a run, read back by their own readers."""

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger

from lightning_attnbal.callbacks import AttentionBalancer
from lightning_attnbal.callbacks._publish import make_publisher
from lightning_attnbal.tracking import RunStarted
from lightning_attnbal.tracking.views import Illustrator, Publisher, ScalarReader, views_for
from tests.integration.tiny import fit
from tests.unit.tracking.views.story import SCALARS, UNITS, draw_white, story

wandb = pytest.importorskip("wandb")
EVENT_FILES = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
STEP, EPOCH = "attnbal/step", "attnbal/epoch"


def publish(logger, events=None, draw=draw_white):
    publisher = Publisher(views_for([logger]), Illustrator(draw, share=1.0))
    publisher.publish(story() if events is None else events)


DISABLED = """
import sys
from lightning.pytorch.loggers import WandbLogger
from lightning_attnbal.tracking.views import Illustrator, Publisher, views_for
from tests.unit.tracking.views.story import draw_white, story

def refuse(event, args):
    is_local = event in {"socket.gethostname", "socket.__new__"}
    starts = event in {"subprocess.Popen", "os.posix_spawn", "os.fork"}
    if starts or (event.startswith("socket.") and not is_local):
        raise AssertionError(event)

sys.addaudithook(refuse)
logger = WandbLogger(project="p", save_dir=sys.argv[1])
Publisher(views_for([logger]), Illustrator(draw_white, share=1.0)).publish(story())
print(logger.experiment.disabled)
"""


def test_a_disabled_run_sends_nothing(tmp_path, monkeypatch):
    """No connection, no process that could open one, no file; a view that failed would warn."""

    def refuse(*args, **kwargs):
        raise AssertionError

    for name in ("connect", "send", "sendall", "sendmsg", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(subprocess, "Popen", refuse)
    publish(WandbLogger(project="p", save_dir=tmp_path, mode="disabled"))
    wandb.finish()
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.slow
def test_disabled_by_the_environment_nothing_is_sent(tmp_path):
    """The same in a process of its own, where the interpreter itself reports every attempt."""
    environment = os.environ | {"WANDB_MODE": "disabled", "PYTHONWARNINGS": "error::RuntimeWarning"}
    done = subprocess.run(
        [sys.executable, "-c", DISABLED, tmp_path],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        env=environment,
    )
    assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.fixture(scope="module")
def offline(tmp_path_factory):
    """A way to make an offline W&B run that leaves nothing outside its folder."""
    folder = tmp_path_factory.mktemp("wandb")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("CACHE", "CONFIG", "DATA"):
            patch.setenv(f"WANDB_{name}_DIR", str(folder / name))
        settings = wandb.Settings(
            mode="offline",
            silent=True,
            console="off",
            x_disable_stats=True,
            x_save_requirements=False,
        )
        yield lambda: WandbLogger(project="p", save_dir=folder, offline=True, settings=settings)
        wandb.teardown()


def read_wandb(logger):
    """(records of the transaction log, run folder), by W&B's own command."""
    folder = Path(logger.experiment.dir).parent
    wandb.finish()
    (log,) = folder.glob("*.wandb")
    command = [Path(sys.executable).with_name("wandb"), "leet", "inspect", "--json", log]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()], folder


def of_type(records, kind):
    return [record[kind] for record in records if record["type"] == kind]


@pytest.fixture(scope="module")
def wandb_run(offline):
    """The made-up run between two values of the user's."""
    logger = offline()
    logger.log_metrics({"train_loss": 2.0}, step=4)
    publish(logger)
    logger.log_metrics({"train_loss": 1.0}, step=24)
    return read_wandb(logger)


def test_wandb_holds_every_scalar_at_its_step(wandb_run):
    rows = [row["item"] for row in of_type(wandb_run[0], "history")]
    found = {
        (key, row[STEP]): value
        for row in rows
        for key, value in row.items()
        if key.startswith("attnbal/")
        and key not in {STEP, EPOCH}
        and isinstance(value, int | float)
        and key.count(".") == 0
    }
    assert found == SCALARS


def test_every_key_has_its_own_step_metric(wandb_run):
    defined = {
        m["name"]: m.get("step_metric") for m in of_type(wandb_run[0], "metric") if "name" in m
    }
    assert {key: defined[key] for key, _ in SCALARS} == {
        key: EPOCH if key.startswith("attnbal/attention/") else STEP for key, _ in SCALARS
    }
    media = ("attnbal/units", "attnbal/decisions", "attnbal/figure/plan", "attnbal/figure/budget")
    assert [defined[key] for key in media] == [EPOCH, STEP, EPOCH, EPOCH]


def test_the_users_steps_are_left_alone(wandb_run):
    rows = [row["item"] for row in of_type(wandb_run[0], "history")]
    users = [(r["trainer/global_step"], r["train_loss"]) for r in rows if "train_loss" in r]
    assert users == [(4, 2.0), (24, 1.0)]
    ours = [r for r in rows if STEP in r]
    assert [r for r in ours if "train_loss" in r] == []
    assert {r["trainer/global_step"] for r in ours if "trainer/global_step" in r} <= {4}


def test_wandb_holds_both_tables_with_reasons(wandb_run):
    tables = {}
    for path in sorted((wandb_run[1] / "files" / "media" / "table").rglob("*.json")):
        table = json.loads(path.read_text())
        rows = [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]
        tables.setdefault(path.name.split("_")[0], []).extend(rows)
    units = tables["units"]
    assert sorted((r["epoch"], r["task"], r["unit"]) for r in units) == sorted(
        [(0, "main", u) for u in UNITS] + [(1, task, u) for task in ("main", "b") for u in UNITS]
    )
    assert [r for r in units if r["epoch"] == 0 and r["unit"] == "head"] == [
        {
            "epoch": 0,
            "task": "main",
            "unit": "head",
            "level": "full",
            "cost_share": 0.25,
            "contribution": 0.5,
            "reason": "0.25 per FLOP against λ = 0.125",
        }
    ]
    assert [r["contribution"] for r in units if r["task"] == "b"] == [None] * 3
    assert [(r["step"], r["changes"], r["reason"]) for r in tables["decisions"]] == [
        (8, "layer.0: full → cached", "it pays"),
        (15, "", ""),
    ]


def test_wandb_holds_a_figure_per_epoch(wandb_run):
    rows = [row["item"] for row in of_type(wandb_run[0], "history")]
    for name in ("plan", "budget"):
        paths = [(r[EPOCH], r[p]) for r in rows if (p := f"attnbal/figure/{name}.path") in r]
        assert [epoch for epoch, _ in paths] == [0, 1]
        assert all((wandb_run[1] / "files" / path).is_file() for _, path in paths)


def test_wandb_holds_configuration_and_summary(wandb_run):
    config = {}
    for update in of_type(wandb_run[0], "config"):
        config |= update["update"].get("attnbal", {})
    assert (config["budget"], config["dimension"], config["seed"]) == (
        "40% of the full run",
        "FLOP",
        7,
    )
    assert [unit["name"] for unit in config["units"]] == [*UNITS]
    assert config["environment"]["torch"] == "2.14.1"
    summary = {}
    for update in of_type(wandb_run[0], "summary"):
        summary |= update["update"]
    assert {key: summary[key] for key in summary if "quality" in key or "ended" in key} == {
        "attnbal/quality/val/accuracy": 0.75,
        "attnbal/ended": "no gain left",
    }
    keys = ("limit", "spent", "saved", "share")
    assert [summary[f"attnbal/budget/{key}"] for key in keys] == [100.0, 75.0, 175.0, 0.75]
    assert summary["attnbal/load/reference_cost"] == 250.0


def read_tensorboard(folder):
    reader = EVENT_FILES.EventAccumulator(str(folder), size_guidance={"images": 0, "tensors": 0})
    return reader.Reload()


@pytest.fixture(scope="module")
def board(tmp_path_factory):
    logger = TensorBoardLogger(tmp_path_factory.mktemp("board"))
    publish(logger)
    logger.finalize("success")
    return read_tensorboard(logger.log_dir)


def scalars_on(board):
    tags = board.Tags()["scalars"]
    return {(tag, s.step): s.value for tag in tags for s in board.Scalars(tag) if "attnbal" in tag}


def test_tensorboard_holds_the_same_scalars(board):
    assert scalars_on(board) == SCALARS


def test_tensorboard_holds_a_figure_per_epoch(board):
    assert {tag: [i.step for i in board.Images(tag)] for tag in board.Tags()["images"]} == {
        "attnbal/figure/plan": [10, 20],
        "attnbal/figure/budget": [10, 20],
    }


def test_tensorboard_says_why(board):
    said = {
        tag.removesuffix("/text_summary"): [
            (t.step, t.tensor_proto.string_val[0].decode()) for t in board.Tensors(tag)
        ]
        for tag in board.Tags()["tensors"]
        if tag.endswith("/text_summary")
    }
    assert said["attnbal/run"] == [
        (0, "budget 40% of the full run, seed 7"),
        (20, "ended: no gain left"),
    ]
    assert said["attnbal/notice"] == [(20, "nothing more to gain")]
    ((step, reasons),) = said["attnbal/decisions"]
    assert (step, reasons.splitlines()[1:]) == (
        8,
        ["- it pays", "- layer.0: full → cached", "- head: 0.25 per FLOP against λ = 0.125"],
    )
    assert [step for step, _ in said["attnbal/decisions/b"]] == [15]


def test_tensorboard_has_a_page_of_custom_scalars(board):
    from tensorboard.plugins.custom_scalar import layout_pb2

    (config,) = board.Tensors("custom_scalars__config__")
    layout = layout_pb2.Layout.FromString(config.tensor_proto.string_val[0])
    assert [c.title for c in layout.category] == [
        "Budget", "Plan", "Load", "Tasks", "Attention", "Time",
    ]  # fmt: skip
    charts = {chart.title: chart for category in layout.category for chart in category.chart}
    (band,) = charts["forecast"].margin.series
    assert (band.value, band.lower, band.upper) == tuple(
        f"attnbal/forecast/{name}" for name in ("mean", "low", "high")
    )


class Publishing(AttentionBalancer):
    """A balancer that shows its events after each hook which may have recorded some."""

    def on_train_start(self, trainer, pl_module):
        super().on_train_start(trainer, pl_module)
        self.publisher = make_publisher(trainer)

    def on_train_batch_end(self, *args):
        super().on_train_batch_end(*args)
        self.publisher.publish(self.events)

    def on_train_end(self, *args):
        super().on_train_end(*args)
        self.publisher.publish(self.events)


@pytest.mark.slow
def test_a_fit_is_shown_in_both(tmp_path, offline):
    """With real figures; every number is that of the recorded event."""
    online, board = offline(), TensorBoardLogger(tmp_path / "board")
    balancer = Publishing("60%", calibration_steps=2, cache=None)
    fit(tmp_path, balancer, logger=[online, board], log_every_n_steps=2)
    reader, expected = ScalarReader(), {}
    for event in balancer.events:
        expected |= {(key, event.step): np.float32(v) for key, v in reader(event).items()}
    found = scalars_on(read_tensorboard(board.log_dir))
    assert {key: np.float32(found[key]) for key in expected} == expected

    records, folder = read_wandb(online)
    rows = [row["item"] for row in of_type(records, "history")]
    shown = {
        (k, r[STEP]): np.float32(r[k])
        for r in rows
        if STEP in r
        for k in r
        if (k, r[STEP]) in expected
    }
    assert shown == expected
    pictures = {path.name.split("_")[0] for path in folder.rglob("*.png")}
    assert {"plan", "budget", "load", "contribution"} <= pictures
    assert isinstance(balancer.events[0], RunStarted)
    shutil.rmtree(folder)
