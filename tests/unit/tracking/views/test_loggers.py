"""Each logger gets its view; what a logger cannot show is said."""

import csv
from pathlib import Path

import pytest
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger, WandbLogger

from lightning_attnbal.tracking.views import (
    Content,
    Frame,
    Illustrator,
    LoggerView,
    MLFlowView,
    Publisher,
    TensorBoardView,
    View,
    WandbView,
    register_view,
    views_for,
)
from tests.unit.tracking.views.story import SCALARS, WHITE, draw_white, story


class MemoryLogger:
    """Like a logger of Lightning's that nobody has heard of."""

    def __init__(self):
        self.metrics = []

    def log_metrics(self, metrics, step=None):
        self.metrics.append((step, dict(metrics)))


class Client:
    """The part of `MlflowClient` that is used."""

    def __init__(self):
        self.files = {}

    def log_artifacts(self, run_id, local_dir, artifact_path):
        for path in Path(local_dir).iterdir():
            self.files[run_id, artifact_path, path.name] = path.read_bytes()


class MLFlowLogger(MemoryLogger):
    """Like Lightning's, which cannot be made without MLflow."""

    run_id = "r1"

    def __init__(self):
        super().__init__()
        self.experiment = Client()


class OwnWandbLogger(WandbLogger):
    """A user's subclass."""


def publish(logger):
    Publisher(views_for([logger]), Illustrator(draw_white)).publish(story())
    return logger


def test_the_view_is_that_of_the_loggers_class(tmp_path):
    loggers = [
        WandbLogger(mode="disabled", save_dir=tmp_path),
        OwnWandbLogger(mode="disabled", save_dir=tmp_path),
        TensorBoardLogger(tmp_path),
        MLFlowLogger(),
        CSVLogger(tmp_path),
        MemoryLogger(),
    ]
    assert [type(view) for view in views_for(loggers)] == [
        WandbView,
        WandbView,
        TensorBoardView,
        MLFlowView,
        LoggerView,
        LoggerView,
    ]


def test_a_new_view_needs_no_change_elsewhere():
    seen = []

    class Steps(View):
        shows = frozenset({Content.SCALARS})

        def __init__(self, logger):
            assert type(logger) is Exotic

        def show(self, frame):
            seen.append(frame.step)

    Exotic = type("ExoticLogger", (MemoryLogger,), {})  # noqa: N806
    register_view("ExoticLogger", Steps)
    publish(Exotic())
    assert seen == [0, 5, 8, 10, 10, 12, 15, 20, 20]


def test_any_logger_shows_every_scalar():
    logger = publish(MemoryLogger())
    assert {(key, s): v for s, metrics in logger.metrics for key, v in metrics.items()} == SCALARS
    assert all(metrics for _, metrics in logger.metrics)


def test_csv_holds_every_scalar(tmp_path):
    logger = publish(CSVLogger(tmp_path))
    logger.save()
    with open(f"{logger.log_dir}/metrics.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    found = {
        (key, int(row["step"])): float(value)
        for row in rows
        for key, value in row.items()
        if value and key != "step"
    }
    assert found == SCALARS


def test_mlflow_holds_scalars_and_figures():
    logger = publish(MLFlowLogger())
    assert {(key, s): v for s, metrics in logger.metrics for key, v in metrics.items()} == SCALARS
    assert logger.experiment.files == {
        ("r1", f"attnbal/{step}", f"{name}.png"): WHITE
        for step in (10, 20)
        for name in ("plan", "budget")
    }


def test_mlflow_gets_only_names_it_takes():
    logger = MLFlowLogger()
    MLFlowView(logger)(Frame(step=3, epoch=0, scalars={"attnbal/task/loss/a<b>é": 1.0}))
    assert logger.metrics == [(3, {"attnbal/task/loss/a_b__": 1.0})]


@pytest.mark.parametrize(
    ("loggers", "expected"),
    [
        ([], ""),
        ([MemoryLogger()], "Not shown in MemoryLogger: figures, tables, reasons."),
        (
            [MLFlowLogger(), MemoryLogger()],
            "Not shown in MLFlowLogger: tables, reasons; MemoryLogger: figures, tables, reasons.",
        ),
    ],
    ids=["none", "scalars only", "two"],
)
def test_one_sentence_names_what_is_left_out(loggers, expected):
    assert Publisher(views_for(loggers)).gaps == expected
