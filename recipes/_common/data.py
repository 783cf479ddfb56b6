"""Loaders of one or several tasks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities import CombinedLoader
from torch.utils.data import DataLoader, Dataset, Sampler

from lightning_attnbal.core import check_integer
from recipes._common.config import DataConfig, Source

Split = Literal["train", "val", "test"]


class TasksData(pl.LightningDataModule, ABC):
    """One DataLoader per task for training, and all of them in turn for validation and test.

    A training batch is `{task: batch}` with one task where tasks take turns (`tasks=` of the
    balancer), else with all of them, as Lightning has it. Validation and test give `{task: batch}`
    with one task at a time.

    A recipe gives `_prepare`, which loads and splits once, and `rows`.

    Args:
        config: what to load and how to batch it.

    Raises:
        ValueError: there is no such task, or a number is outside its range.

    Attributes:
        tasks: names of the tasks that are trained.
    """

    known_tasks: tuple[str, ...] = ()
    """Tasks the recipe has; () where they depend on the data."""
    same_samples = False
    """Whether all tasks ask about the same rows."""

    def __init__(self, config: DataConfig) -> None:
        super().__init__()
        self.config = config
        self.tasks: tuple[str, ...] = tuple(config.tasks) or self.known_tasks
        unknown = [t for t in self.tasks if self.known_tasks and t not in self.known_tasks]
        if unknown:
            known = ", ".join(map(repr, self.known_tasks))
            msg = f"Expected `data.tasks` to be among {known}, but got {unknown[0]!r}."
            raise ValueError(msg)
        for source, key in ((Source.files, "path"), (Source.hub, "name")):
            if config.source is source and getattr(config, key) is None:
                msg = f"Expected `data.{key}` to be given for `data={source}`, but it is missing."
                raise ValueError(msg)
        for name in ("batch_size", "num_val"):
            check_integer(f"data.{name}", getattr(config, name), low=1)
        check_integer("data.num_workers", config.num_workers, low=0)
        self._is_ready = False

    @abstractmethod
    def _prepare(self) -> None:
        """Load, split and encode; called once."""

    @abstractmethod
    def rows(self, task: str, split: Split) -> Dataset[Any]:
        """Rows of a task, after `setup`."""

    def collate(self, rows: list[Any]) -> Any:
        """A batch of rows; torch's own way unless a recipe says otherwise."""
        return torch.utils.data.default_collate(rows)

    def batches(self, task: str, generator: torch.Generator) -> Sampler[list[int]] | None:  # noqa: ARG002
        """Which training rows go together; None: any, shuffled by `generator`."""
        return None

    def baselines(self) -> dict[str, dict[str, float]]:
        """Trivial ways to do the tasks: name → task/metric → value on the test rows."""
        return {}

    def setup(self, stage: str = "fit") -> None:  # noqa: ARG002 (Lightning's signature)
        """Prepare, once for all stages."""
        if not self._is_ready:
            self._prepare()
            self._is_ready = True

    def loader(self, task: str, split: Split) -> DataLoader[Any]:
        """Batches of a task; training rows are shuffled, the others always in the same order."""
        generator = torch.Generator().manual_seed(self.config.seed)
        sampler = self.batches(task, generator) if split == "train" else None
        sizes: dict[str, Any] = {
            "batch_size": self.config.batch_size,
            "shuffle": split == "train",
            "generator": generator,
        }
        return DataLoader(
            self.rows(task, split),
            collate_fn=self.collate,
            num_workers=self.config.num_workers,
            persistent_workers=self.config.num_workers > 0,
            pin_memory=self.config.pin_memory,
            **({"batch_sampler": sampler} if sampler is not None else sizes),
        )

    def train_dataloader(self) -> dict[str, DataLoader[Any]]:
        """A loader per task."""
        return {task: self.loader(task, "train") for task in self.tasks}

    def val_dataloader(self) -> CombinedLoader:
        """Validation rows, one task after the other."""
        return self._in_turn("val")

    def test_dataloader(self) -> CombinedLoader:
        """Test rows, one task after the other."""
        return self._in_turn("test")

    def _in_turn(self, split: Split) -> CombinedLoader:
        loaders = {task: NamedLoader(task, self.loader(task, split)) for task in self.tasks}
        return CombinedLoader(loaders, "sequential")


class NamedLoader:
    """A loader whose batches say whose they are: `{task: batch}`."""

    def __init__(self, task: str, loader: DataLoader[Any]) -> None:
        self._task, self._loader = task, loader

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        return ({self._task: batch} for batch in self._loader)


def take_rows(rows: Sequence[int], most: int | None) -> list[int]:
    """The first rows, at most so many.

    Example:
        >>> take_rows([3, 1, 2], 2), take_rows([3, 1], None)
        ([3, 1], [3, 1])
    """
    return list(rows if most is None else rows[:most])
