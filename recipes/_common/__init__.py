"""What the recipes share: loaders and modules of tasks, configuration, runs and what they leave."""

from recipes._common.config import (
    BalancerConfig,
    CallbacksConfig,
    DataConfig,
    ModelConfig,
    Source,
    TrainConfig,
    TrainerConfig,
)
from recipes._common.data import Split, TasksData, take_rows
from recipes._common.module import TasksModule, class_metrics
from recipes._common.saved import Predictor, read_card, write_card

__all__ = [
    "BalancerConfig",
    "CallbacksConfig",
    "DataConfig",
    "ModelConfig",
    "Predictor",
    "Source",
    "Split",
    "TasksData",
    "TasksModule",
    "TrainConfig",
    "TrainerConfig",
    "class_metrics",
    "read_card",
    "take_rows",
    "write_card",
]
