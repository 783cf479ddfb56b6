"""Tasks take turns by a rule, without a budget."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Mapping
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor
from typing_extensions import override

from lightning_attnbal.callbacks._arguments import instance
from lightning_attnbal.callbacks._losses import logged_loss
from lightning_attnbal.callbacks._refuse import refuse_other_data
from lightning_attnbal.callbacks._task_ranks import Ranks
from lightning_attnbal.core import check_integer, check_number
from lightning_attnbal.multitask import Proportional, ShareRule, TaskLoader, TaskStatus
from lightning_attnbal.trainer import TaskData, serve_tasks


class TaskScheduler(pl.Callback):
    """Serves one task per step, in shares that a rule gives anew each epoch.

    The training data is a dict of one DataLoader per task; `training_step` gets `{task: batch}`.
    Everything trains and no budget is kept: that is `AttentionBalancer(tasks=...)`. This is for
    mixing by a known rule, or for comparing with one.

    Hooks: `setup`, `on_train_start`, `on_train_batch_start`, `on_train_batch_end`,
    `on_train_epoch_end`, `on_exception`, `teardown`. Saved with a checkpoint; Lightning saves the
    place in the data.

    Args:
        rule: from what tasks did so far to shares; default `Proportional()`.
        epoch_batches: batches per epoch, in [1, inf); None: one pass over the data of every task.
        seed: of the shuffling, in [0, inf).
        costs: task → cost of a batch, in (0, inf), for rules that weigh it; None: measured seconds.

    Attributes:
        losses: task → mean training loss of each epoch so far, over all ranks; NaN for an epoch in
            which it got no batch.
        shares: task → share of the epoch's batches.

    Raises:
        TypeError: the rule is none.
        ValueError: a number is out of range.
        MisconfigurationException: before training, for data that is not a dict of loaders.

    Example:
        >>> from lightning_attnbal.multitask import Temperature
        >>> TaskScheduler(Temperature(tau=2.0), epoch_batches=100).shares
        {}
    """

    def __init__(
        self,
        rule: ShareRule | None = None,
        *,
        epoch_batches: int | None = None,
        seed: int = 0,
        costs: Mapping[str, float] | None = None,
    ) -> None:
        self.rule = instance("rule", rule, ShareRule, Proportional)
        if epoch_batches is not None:
            check_integer("epoch_batches", epoch_batches, low=1)
        for task, cost in (costs or {}).items():
            check_number(f"costs[{task!r}]", cost, low=0, low_open=True)
        self._epoch_batches = epoch_batches
        self._seed = check_integer("seed", seed, low=0)
        self._costs = None if costs is None else dict(costs)
        self._data: TaskData | None = None
        self._reset()

    def _reset(self) -> None:
        self.losses: dict[str, list[float]] = {}
        self.shares: dict[str, float] = {}
        self._sums: dict[str, tuple[Tensor, int]] = {}
        self._batches: dict[str, int] = {}
        self._seconds: dict[str, float] = {}
        self._began = math.nan

    @property
    def loader(self) -> TaskLoader | None:
        """What serves the batches, once training has started."""
        return None if self._data is None else self._data.loader

    @override
    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if stage == "fit":
            self._reset()
            self._data = serve_tasks(trainer, num_batches=self._epoch_batches, seed=self._seed)

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        refuse_other_data(self.loader, "one")
        if not self.shares:
            self._share()

    @override
    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._began = time.perf_counter()

    @override
    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        (task,) = batch
        self._batches[task] = self._batches.get(task, 0) + 1
        took = time.perf_counter() - self._began
        self._seconds[task] = self._seconds.get(task, 0.0) + took
        loss = logged_loss(outputs, trainer.accumulate_grad_batches)
        if loss is not None:
            total, count = self._sums.get(task, (torch.zeros((), dtype=torch.float64), 0))
            self._sums[task] = total + loss.detach().double().cpu(), count + 1

    @override
    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take stock of the epoch on all ranks, which so find the same shares."""
        assert self.loader is not None
        mine = {task: (float(total), count) for task, (total, count) in self._sums.items()}
        everyones = Ranks(trainer.world_size).gather((mine, self._seconds))
        for task in self.loader.tasks:
            seen = [sums[task] for sums, _ in everyones if task in sums]
            count = sum(n for _, n in seen)
            mean = sum(total for total, _ in seen) / count if count else math.nan
            self.losses.setdefault(task, []).append(mean)
        for task in self._seconds:
            self._seconds[task] = statistics.fmean(seconds[task] for _, seconds in everyones)
        self._sums = {}
        self._share()

    def _share(self) -> None:
        """Ask the rule."""
        assert self.loader is not None
        self.shares = self.rule(
            [
                TaskStatus(
                    name=task,
                    num_batches=length,
                    losses=tuple(self.losses.get(task, ())),
                    batches=self._batches.get(task, 0),
                    cost_per_batch=self._cost(task),
                )
                for task, length in self.loader.lengths.items()
            ]
        )
        self.loader.set_shares(self.shares)

    def _cost(self, task: str) -> float:
        if self._costs is not None:
            return self._costs[task]
        count = self._batches.get(task, 0)
        return self._seconds[task] / count if count else 1.0

    @override
    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        self._close()

    @override
    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self._close()

    def _close(self) -> None:
        if self._data is not None:
            self._data.undo()

    @override
    def state_dict(self) -> dict[str, Any]:
        return {
            "losses": {task: list(losses) for task, losses in self.losses.items()},
            "shares": dict(self.shares),
            "sums": {task: (float(total), n) for task, (total, n) in self._sums.items()},
            "batches": dict(self._batches),
            "seconds": dict(self._seconds),
        }

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.losses = {task: list(losses) for task, losses in state_dict["losses"].items()}
        self.shares = dict(state_dict["shares"])
        self._sums = {
            task: (torch.tensor(total, dtype=torch.float64), n)
            for task, (total, n) in state_dict["sums"].items()
        }
        self._batches = dict(state_dict["batches"])
        self._seconds = dict(state_dict["seconds"])
