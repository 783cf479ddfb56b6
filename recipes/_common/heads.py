"""Several questions about the same kind of input: one encoder, a linear head per task."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from sklearn.base import ClassifierMixin  # type: ignore[import-untyped]  # it ships no types
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from lightning_attnbal.core import check_integer
from recipes._common.config import ModelConfig
from recipes._common.module import Stage, TasksModule, class_metrics

LabelledBatch = Mapping[str, Tensor]
"""`labels` (B,), and what the encoder is called with."""


class HeadsModule(TasksModule):
    """An encoder and one linear head per task; the loss is the sum of their cross-entropies.

    Where tasks of a batch bring equal inputs, the encoder runs once for all of them. Logs `loss`,
    `accuracy`, `macro_f1` and `calibration_error` of each task under `val/` and `test/`.

    A recipe gives `features` and `save_pretrained`.

    Args:
        config: learning rate and weight decay.
        encoder: what `features` calls.
        width: numbers D that `features` gives per input, in [1, inf).
        class_counts: task → number of classes C, each in [2, inf).

    Raises:
        ValueError: a number is outside its range.
    """

    def __init__(
        self, config: ModelConfig, encoder: nn.Module, width: int, class_counts: Mapping[str, int]
    ) -> None:
        super().__init__(config)
        self.encoder = encoder.train()  # Lightning would leave one that comes in eval mode in it
        for task, classes in class_counts.items():
            check_integer(f"classes of {task!r}", classes, low=2)
        self.heads = nn.ModuleDict({t: nn.Linear(width, n) for t, n in class_counts.items()})
        self.val_metrics = class_metrics(class_counts)
        self.test_metrics = class_metrics(class_counts)

    @abstractmethod
    def features(self, **inputs: Tensor) -> Tensor:
        """Encoder output (B, D)."""

    def forward(self, batch: Mapping[str, LabelledBatch]) -> dict[str, Tensor]:
        """Logits (B, C) of each task."""
        return {task: self.heads[task](x) for task, x in self.encode(batch).items()}

    def encode(self, batch: Mapping[str, LabelledBatch]) -> dict[str, Tensor]:
        """Encoder output (B, D) of each task's inputs; inputs that tasks share run once."""
        encoded: dict[tuple[int, ...], Tensor] = {}
        keys = {}
        for task, rows in batch.items():
            inputs = {name: value for name, value in rows.items() if name != "labels"}
            keys[task] = tuple(map(id, inputs.values()))
            if keys[task] not in encoded:
                encoded[keys[task]] = self.features(**inputs)
        return {task: encoded[key] for task, key in keys.items()}

    def losses(self, batch: Mapping[str, LabelledBatch]) -> dict[str, Tensor]:
        """Mean cross-entropy of each task."""
        logits = self(batch)
        return {task: cross_entropy(logits[task], batch[task]["labels"]) for task in batch}

    def evaluate(self, task: str, batch: LabelledBatch, stage: Stage) -> None:
        """Log loss and metrics of a task."""
        self._score({task: batch}, stage)

    def validation_step(
        self,
        batch: dict[str, Any],
        batch_idx: int,  # noqa: ARG002 (Lightning's signature)
        dataloader_idx: int = 0,  # noqa: ARG002
    ) -> None:
        """Score the tasks on validation rows."""
        self._score(batch, "val")

    def test_step(
        self,
        batch: dict[str, Any],
        batch_idx: int,  # noqa: ARG002 (Lightning's signature)
        dataloader_idx: int = 0,  # noqa: ARG002
    ) -> None:
        """Score the tasks on test rows."""
        self._score(batch, "test")

    def _score(self, batch: Mapping[str, LabelledBatch], stage: Stage) -> None:
        metrics = self.val_metrics if stage == "val" else self.test_metrics
        for task, logits in self(batch).items():
            labels = batch[task]["labels"]
            metrics[task].update(logits.float(), labels)  # type: ignore[operator]  # a collection
            scores = {"loss": cross_entropy(logits, labels), **dict(metrics[task].items())}  # type: ignore[operator]
            self.log_for(task, stage, scores, len(labels))


def share_inputs(batch: dict[str, dict[str, Tensor]]) -> dict[str, dict[str, Tensor]]:
    """`batch` with equal inputs of several tasks made one tensor, for `HeadsModule.encode`.

    Example:
        >>> same = {"mood": {"x": torch.ones(2)}, "topic": {"x": torch.ones(2)}}
        >>> share_inputs(same)["mood"]["x"] is same["topic"]["x"]
        True
    """
    first = next(iter(batch.values()))
    for rows in batch.values():
        for name in rows.keys() - {"labels"}:
            if torch.equal(rows[name], first[name]):
                rows[name] = first[name]
    return batch


class ClassPredictor:
    """Classes of new inputs, with their probabilities.

    Args:
        module: the trained model.
        class_names: task → names of its classes.
        prepare: from inputs to what the encoder is called with.
        batch_size: inputs that are encoded at once, in [1, inf).
    """

    def __init__(
        self,
        module: HeadsModule,
        class_names: Mapping[str, Sequence[str]],
        prepare: Callable[[Sequence[str]], dict[str, Tensor]],
        batch_size: int = 32,
    ) -> None:
        self._module = module.eval()
        self._class_names = class_names
        self._prepare = prepare
        self._batch_size = check_integer("batch_size", batch_size, low=1)

    @torch.no_grad()
    def __call__(
        self, inputs: Sequence[str], *, task: str | None = None, top: int = 5
    ) -> list[dict[str, Any]]:
        """The likeliest classes of each input, by task.

        Args:
            inputs: sentences or picture files.
            task: one of the model's tasks; None: all of them.
            top: classes per task, in [1, inf).

        Returns:
            A record per input: `input`, and for each task a list of `label` and `probability`.

        Raises:
            ValueError: there is no such task, or an input cannot be read.
        """
        check_integer("top", top, low=1)
        if task is not None and task not in self._class_names:
            known = ", ".join(map(repr, self._class_names))
            msg = f"Expected `task` to be one of {known}, but got {task!r}."
            raise ValueError(msg)
        tasks = list(self._class_names) if task is None else [task]
        starts = range(0, len(inputs), self._batch_size)
        parts = (inputs[start : start + self._batch_size] for start in starts)
        return [record for part in parts for record in self._records(part, tasks, top)]

    def _records(self, inputs: Sequence[str], tasks: list[str], top: int) -> list[dict[str, Any]]:
        x = self._module.features(**self._prepare(inputs))
        records: list[dict[str, Any]] = [{"input": one} for one in inputs]
        for task in tasks:
            names = self._class_names[task]
            best = self._module.heads[task](x).float().softmax(-1).topk(min(top, len(names)))
            for record, chances, classes in zip(records, *map(Tensor.tolist, best), strict=True):
                pairs = zip(classes, chances, strict=True)
                record[task] = [{"label": names[c], "probability": p} for c, p in pairs]
        return records


def fit_and_score(
    model: ClassifierMixin, train: tuple[Any, Any], test: tuple[Any, Any], num_classes: int
) -> dict[str, float]:
    """Metrics of a scikit-learn classifier on test rows, by the rules of `class_metrics`.

    Args:
        model: with `predict_proba`; fitted here.
        train: inputs and labels.
        test: inputs and labels.
        num_classes: C in [2, inf), of which `train` may lack some.

    Example:
        >>> from sklearn.dummy import DummyClassifier
        >>> rows = [[0], [0], [0], [0]], [1, 1, 1, 0]
        >>> round(fit_and_score(DummyClassifier(), rows, rows, 2)["accuracy"], 2)
        0.75
    """
    model.fit(*train)
    found = torch.as_tensor(model.predict_proba(test[0])).float()
    chances = torch.zeros(len(found), num_classes)
    chances[:, torch.as_tensor(model.classes_)] = found
    metrics = class_metrics({"task": num_classes})["task"]
    scores = metrics(chances, torch.as_tensor(test[1]))
    return {name: float(score) for name, score in scores.items()}
