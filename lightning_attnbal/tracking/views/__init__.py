"""Views of the event stream in the loggers of a Trainer; a new one needs no change elsewhere."""

from lightning_attnbal.tracking.views._dashboard import build_dashboard, save_dashboard
from lightning_attnbal.tracking.views._figures import Illustrator, draw_figures, missing_for_figures
from lightning_attnbal.tracking.views._keys import Key, step_metric
from lightning_attnbal.tracking.views._loggers import (
    Logger,
    LoggerView,
    register_view,
    views_for,
)
from lightning_attnbal.tracking.views._mlflow import MLFlowView
from lightning_attnbal.tracking.views._publisher import Publisher
from lightning_attnbal.tracking.views._rows import DecisionRow, UnitRow, decision_rows, unit_rows
from lightning_attnbal.tracking.views._scalars import ScalarReader
from lightning_attnbal.tracking.views._sweep import budget_sweep
from lightning_attnbal.tracking.views._tensorboard import TensorBoardView
from lightning_attnbal.tracking.views._view import Content, Frame, View
from lightning_attnbal.tracking.views._wandb import WandbView

register_view("MLFlowLogger", MLFlowView)
register_view("TensorBoardLogger", TensorBoardView)
register_view("WandbLogger", WandbView)

__all__ = [
    "Content",
    "DecisionRow",
    "Frame",
    "Illustrator",
    "Key",
    "Logger",
    "LoggerView",
    "MLFlowView",
    "Publisher",
    "ScalarReader",
    "TensorBoardView",
    "UnitRow",
    "View",
    "WandbView",
    "budget_sweep",
    "build_dashboard",
    "decision_rows",
    "draw_figures",
    "missing_for_figures",
    "register_view",
    "save_dashboard",
    "step_metric",
    "unit_rows",
    "views_for",
]
