"""A module of one or several tasks on shared layers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from torchmetrics import MetricCollection
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassCalibrationError,
    MulticlassF1Score,
)

from lightning_attnbal.core import check_number
from recipes._common.config import ModelConfig

Stage = Literal["val", "test"]


class TasksModule(pl.LightningModule, ABC):
    """Trains on the sum of the losses of the tasks in a batch, by AdamW.

    It knows nothing of budgets: the balancer is added to the Trainer. Logs `train/<task>/loss`, and
    what `evaluate` logs under `val/<task>/` and `test/<task>/`.

    A recipe gives `losses`, `evaluate` and `save_pretrained`.

    Args:
        config: learning rate and weight decay.

    Raises:
        ValueError: a number is outside its range.
    """

    headline: Mapping[str, str] = {}
    """Task → the metric it is judged by, larger being better."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self._lr = check_number("model.lr", config.lr, low=0, low_open=True)
        self._weight_decay = check_number("model.weight_decay", config.weight_decay, low=0)

    @abstractmethod
    def losses(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Mean loss of each task of the batch."""

    @abstractmethod
    def evaluate(self, task: str, batch: Any, stage: Stage) -> None:
        """Log the loss and update and log the metrics of a task (`log_for`)."""

    @abstractmethod
    def save_pretrained(self, folder: Path) -> None:
        """Write what the field's ordinary library loads, and the card `load_predictor` reads."""

    def training_step(self, batch: dict[str, Any]) -> Tensor:
        """Sum of the losses of the tasks in the batch."""
        losses = self.losses(batch)
        for task, loss in losses.items():
            self.log(f"train/{task}/loss", loss, batch_size=_size(batch[task]))
        return torch.stack(list(losses.values())).sum()

    def validation_step(
        self,
        batch: dict[str, Any],
        batch_idx: int,  # noqa: ARG002 (Lightning's signature)
        dataloader_idx: int = 0,  # noqa: ARG002
    ) -> None:
        """Score a task on validation rows."""
        for task, rows in batch.items():
            self.evaluate(task, rows, "val")

    def test_step(
        self,
        batch: dict[str, Any],
        batch_idx: int,  # noqa: ARG002 (Lightning's signature)
        dataloader_idx: int = 0,  # noqa: ARG002
    ) -> None:
        """Score a task on test rows."""
        for task, rows in batch.items():
            self.evaluate(task, rows, "test")

    def log_for(self, task: str, stage: Stage, values: Mapping[str, Any], size: int) -> None:
        """Log numbers or metrics as `<stage>/<task>/<name>`, averaged over `size` rows a batch."""
        for name, value in values.items():
            self.log(f"{stage}/{task}/{name}", value, batch_size=size, add_dataloader_idx=False)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW on what may train; what gets no gradient in a step is left alone by it."""
        trained = [p for p in self.parameters() if p.requires_grad]
        return torch.optim.AdamW(trained, lr=self._lr, weight_decay=self._weight_decay)


def _size(batch: Any) -> int:
    """Rows of a batch: a tensor, or a tuple or mapping of them."""
    if isinstance(batch, Mapping):
        batch = next(iter(batch.values()))
    elif isinstance(batch, tuple | list):
        batch = batch[0]
    return len(batch)


def class_metrics(class_counts: Mapping[str, int]) -> nn.ModuleDict:
    """Accuracy, macro-F1 and calibration error (10 bins) for each task.

    Example:
        >>> sorted(class_metrics({"colour": 3})["colour"])
        ['accuracy', 'calibration_error', 'macro_f1']
    """
    return nn.ModuleDict(
        {
            task: MetricCollection(
                {
                    "accuracy": MulticlassAccuracy(classes, average="micro"),
                    "macro_f1": MulticlassF1Score(classes, average="macro"),
                    "calibration_error": MulticlassCalibrationError(classes, n_bins=10),
                }
            )
            for task, classes in class_counts.items()
        }
    )
