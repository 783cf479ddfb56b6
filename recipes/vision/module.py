"""An image classifier around any model, for any Lightning Trainer."""

from __future__ import annotations

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score

from lightning_attnbal.core import check_integer, check_number


class ImageClassifier(pl.LightningModule):
    """A model from images to logits, trained by AdamW on the cross-entropy.

    It knows nothing of budgets: the balancer is added to the Trainer. Logs `train/loss`, and
    `loss`, `accuracy` and `macro_f1` under `val/` and `test/`.

    Args:
        model: logits (B, K) of images (B, C, H, W); trained in whole.
        num_classes: classes K, in [2, inf).
        lr: peak learning rate, in (0, inf).
        weight_decay: decoupled weight decay, in [0, inf).

    Raises:
        ValueError: a number is outside its range.
    """

    def __init__(
        self, model: nn.Module, num_classes: int, lr: float = 1e-3, weight_decay: float = 0.01
    ) -> None:
        super().__init__()
        check_integer("num_classes", num_classes, low=2)
        self._lr = check_number("lr", lr, low=0, low_open=True)
        self._weight_decay = check_number("weight_decay", weight_decay, low=0)
        self.model = model.train()  # Lightning would leave a model that comes in eval mode in it
        metrics = MetricCollection(
            {
                "accuracy": MulticlassAccuracy(num_classes, average="micro"),
                "macro_f1": MulticlassF1Score(num_classes, average="macro"),
            }
        )
        self.val_metrics = metrics.clone(prefix="val/")
        self.test_metrics = metrics.clone(prefix="test/")

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, K) of images (B, C, H, W)."""
        logits: Tensor = self.model(images)
        return logits

    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Mean cross-entropy of the batch."""
        images, labels = batch
        loss = cross_entropy(self(images), labels)
        self.log("train/loss", loss)
        return loss

    def _evaluate(self, batch: tuple[Tensor, Tensor], metrics: MetricCollection) -> None:
        images, labels = batch
        logits = self(images)
        metrics.update(logits, labels)
        self.log(f"{metrics.prefix}loss", cross_entropy(logits, labels), batch_size=len(labels))
        self.log_dict(metrics, batch_size=len(labels))

    def validation_step(self, batch: tuple[Tensor, Tensor]) -> None:
        """Loss, accuracy and macro-F1 on validation rows."""
        self._evaluate(batch, self.val_metrics)

    def test_step(self, batch: tuple[Tensor, Tensor]) -> None:
        """Loss, accuracy and macro-F1 on test rows."""
        self._evaluate(batch, self.test_metrics)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW on every parameter; what is frozen in a step is left alone by it."""
        return torch.optim.AdamW(self.parameters(), lr=self._lr, weight_decay=self._weight_decay)
