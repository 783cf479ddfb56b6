"""Several questions about texts on one encoder: data and module of a multi-task run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities import CombinedLoader
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score
from transformers import AutoModel

from lightning_attnbal.core import check_choice, check_number
from recipes.text.data import ReviewsData

TextBatch = dict[str, Tensor]


class TextTasksData(pl.LightningDataModule):
    """One loader per task for training, and all of them in turn for validation and test.

    Args:
        tasks: name → data of the task.
        is_shared: whether all tasks ask about the same texts, so that validation and test encode
            each text once for all of them.
        mode: "one" loader per task for training, for tasks that take turns, or "all" tasks of the
            same texts in each batch.

    Raises:
        ValueError: an unknown mode, or one that does not go with the texts.

    Example:
        >>> TextTasksData({}).class_counts
        {}
    """

    def __init__(
        self,
        tasks: Mapping[str, ReviewsData],
        *,
        is_shared: bool = False,
        mode: Literal["one", "all"] = "one",
    ) -> None:
        super().__init__()
        self.tasks = dict(tasks)
        self.is_shared = is_shared
        self.mode = check_choice("mode", mode, ("one", "all"))
        if mode == "all" and not is_shared:
            msg = "Expected `mode` to be 'one' for tasks with texts of their own, but got 'all'."
            raise ValueError(msg)

    @property
    def class_counts(self) -> dict[str, int]:
        """Task → number of classes, after `setup`."""
        return {task: len(data.class_names) for task, data in self.tasks.items()}

    def setup(self, stage: str = "fit") -> None:
        """Load, split and tokenise, once for all stages."""
        for data in self.tasks.values():
            data.setup(stage)

    def train_dataloader(self) -> Any:
        """One loader per task, or one for all of them."""
        loaders = {task: data.train_dataloader() for task, data in self.tasks.items()}
        return _Together(loaders) if self.mode == "all" else loaders

    def val_dataloader(self) -> CombinedLoader:
        """Validation rows, one task after the other."""
        return self._in_turn(lambda data: data.val_dataloader())

    def test_dataloader(self) -> CombinedLoader:
        """Test rows, one task after the other."""
        return self._in_turn(lambda data: data.test_dataloader())

    def _in_turn(self, loader: Callable[[ReviewsData], DataLoader[Any]]) -> CombinedLoader:
        loaders = {task: loader(data) for task, data in self.tasks.items()}
        if self.is_shared:
            return CombinedLoader({"all": _Together(loaders)}, "sequential")
        named = {task: _Named(task, one) for task, one in loaders.items()}
        return CombinedLoader(named, "sequential")


class _Named:
    """A loader whose batches say whose they are."""

    def __init__(self, task: str, loader: DataLoader[Any]) -> None:
        self._task, self._loader = task, loader

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[dict[str, TextBatch]]:
        return ({self._task: batch} for batch in self._loader)


class _Together:
    """Loaders of the same texts, batch by batch; the texts are one tensor for all tasks."""

    def __init__(self, loaders: Mapping[str, DataLoader[Any]]) -> None:
        self._loaders = dict(loaders)

    def __len__(self) -> int:
        return max(map(len, self._loaders.values()))

    def __iter__(self) -> Iterator[dict[str, TextBatch]]:
        for batches in zip(*self._loaders.values(), strict=True):
            batch = dict(zip(self._loaders, batches, strict=True))
            first = batches[0]["input_ids"]
            for texts in batch.values():
                if torch.equal(texts["input_ids"], first):
                    texts["input_ids"] = first
            yield batch


class TextTasks(pl.LightningModule):
    """A pretrained encoder with mean pooling and one linear head per task.

    `training_step` takes `{task: batch}` with one task or several; where several bring the same
    texts (the same tensor), the encoder runs once for all of them. The loss is the sum over the
    tasks of the batch. Logs `train/<task>/loss`, and `loss`, `accuracy` and `macro_f1` of each task
    under `val/` and `test/`.

    Args:
        encoder_path: folder (or name) that `from_pretrained` accepts.
        class_counts: task → number of classes.
        lr: peak learning rate, in (0, inf).
        weight_decay: decoupled weight decay, in [0, inf).

    Raises:
        ValueError: a number is outside its range.
    """

    def __init__(
        self,
        encoder_path: str | Path,
        class_counts: Mapping[str, int],
        lr: float = 1e-4,
        weight_decay: float = 0.01,
    ) -> None:
        super().__init__()
        self._lr = check_number("lr", lr, low=0, low_open=True)
        self._weight_decay = check_number("weight_decay", weight_decay, low=0)
        options: dict[str, Any] = {"add_pooling_layer": False}
        self.encoder = AutoModel.from_pretrained(str(encoder_path), **options).train()
        width = self.encoder.config.hidden_size
        self.heads = nn.ModuleDict({t: nn.Linear(width, n) for t, n in class_counts.items()})
        self.val_metrics = nn.ModuleDict({t: _metrics(n) for t, n in class_counts.items()})
        self.test_metrics = nn.ModuleDict({t: _metrics(n) for t, n in class_counts.items()})

    def forward(self, batch: Mapping[str, TextBatch]) -> dict[str, Tensor]:
        """Logits (B, C) of each task."""
        return {task: self.heads[task](text) for task, text in self.encode(batch).items()}

    def encode(self, batch: Mapping[str, TextBatch]) -> dict[str, Tensor]:
        """Mean encoder output (B, D) of each task's texts; texts that tasks share run once."""
        encoded: dict[int, Tensor] = {}
        for texts in batch.values():
            key = id(texts["input_ids"])
            if key not in encoded:
                encoded[key] = self._pooled(texts["input_ids"], texts["attention_mask"])
        return {task: encoded[id(texts["input_ids"])] for task, texts in batch.items()}

    def _pooled(self, ids: Tensor, mask: Tensor) -> Tensor:
        hidden = self.encoder(input_ids=ids, attention_mask=mask).last_hidden_state
        weights = mask.unsqueeze(-1).to(hidden.dtype)
        pooled: Tensor = (hidden * weights).sum(1) / weights.sum(1)
        return pooled

    def losses(self, batch: Mapping[str, TextBatch]) -> dict[str, Tensor]:
        """Mean cross-entropy of each task."""
        logits = self(batch)
        return {task: cross_entropy(logits[task], batch[task]["labels"]) for task in batch}

    def training_step(self, batch: dict[str, TextBatch]) -> Tensor:
        """Sum of the losses of the tasks in the batch."""
        losses = self.losses(batch)
        for task, loss in losses.items():
            self.log(f"train/{task}/loss", loss, batch_size=len(batch[task]["labels"]))
        return torch.stack(list(losses.values())).sum()

    def validation_step(
        self,
        batch: dict[str, TextBatch],
        batch_idx: int,  # noqa: ARG002 (Lightning's signature)
        dataloader_idx: int = 0,  # noqa: ARG002
    ) -> None:
        """Loss, accuracy and macro-F1 of a task on validation rows."""
        self._evaluate(batch, self.val_metrics, "val")

    def test_step(
        self,
        batch: dict[str, TextBatch],
        batch_idx: int,  # noqa: ARG002 (Lightning's signature)
        dataloader_idx: int = 0,  # noqa: ARG002
    ) -> None:
        """Loss, accuracy and macro-F1 of a task on test rows."""
        self._evaluate(batch, self.test_metrics, "test")

    def _evaluate(self, batch: dict[str, TextBatch], metrics: nn.ModuleDict, stage: str) -> None:
        for task, logits in self(batch).items():
            labels = batch[task]["labels"]
            size: dict[str, Any] = {"batch_size": len(labels), "add_dataloader_idx": False}
            metrics[task].update(logits, labels)  # type: ignore[operator]  # a MetricCollection
            self.log(f"{stage}/{task}/loss", cross_entropy(logits, labels), **size)
            for name, metric in metrics[task].items():  # type: ignore[operator]
                self.log(f"{stage}/{task}/{name}", metric, **size)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW on every parameter; what gets no gradient in a step is left alone by it."""
        return torch.optim.AdamW(self.parameters(), lr=self._lr, weight_decay=self._weight_decay)


def _metrics(num_classes: int) -> MetricCollection:
    return MetricCollection(
        {
            "accuracy": MulticlassAccuracy(num_classes, average="micro"),
            "macro_f1": MulticlassF1Score(num_classes, average="macro"),
        }
    )
