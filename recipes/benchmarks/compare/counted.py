"""The budget of the methods that are not ours: every batch is counted, the last one still fits."""

from __future__ import annotations

import math
from collections.abc import Hashable
from contextlib import ExitStack
from typing import Any

import lightning.pytorch as pl
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.strategies import SingleDeviceStrategy
from torch.utils.flop_counter import FlopCounterMode
from typing_extensions import override

from lightning_attnbal.core import check_number
from lightning_attnbal.trainer import BudgetLR, Schedule, make_schedule
from recipes.benchmarks.compare._step_costs import (
    BatchClock,
    CostKey,
    StepCosts,
    batch_shapes,
    neutral_counter,
)


class CountedBudget(pl.Callback):
    """Stops before the step that would exceed `limit_flops`; the learning rate ends with it.

    Each training batch is charged the FLOPs that torch counts on a real step with the same batch
    shapes, the same trainable parameters and the same `tag`: counted once, on the step itself,
    which it does not change. The end is found at a batch's start, when its cost (or, if it is of a
    new kind, a bound of it) no longer fits. So `spent <= limit_flops` at the end of every run.

    Must be the last of a method's callbacks: `Method.callbacks` puts it there.

    Hooks: `setup`, `on_fit_start`, `on_train_start`, `on_train_batch_start`, `on_before_backward`,
    `on_after_backward`, `on_train_batch_end`, `on_train_end`, `on_exception`, `teardown`.

    Args:
        limit_flops: FLOPs of all training steps and declared probes, in (0, inf].
        schedule: "linear", "cosine", "rex", "constant" or a `Schedule`, over the share spent.
        warmup: share of the budget spent on the linear warm-up, in [0, 1).

    Attributes:
        schedule: the schedule in use; a method may replace it in `on_train_start`.
        tag: set by a method that changes a step's cost otherwise than by what is trainable.
        spent: FLOPs so far.
        charged: the part of `spent` that probes took.
        num_steps: optimizer steps taken.
        num_batches: training batches seen.

    Raises:
        ValueError: an argument is out of range, or not even the first step fits.
        MisconfigurationException: in `setup`, for a Trainer it cannot account for.
    """

    def __init__(
        self, limit_flops: float, *, schedule: str | Schedule = "linear", warmup: float = 0.0
    ) -> None:
        if limit_flops != math.inf:
            check_number("limit_flops", limit_flops, low=0, low_open=True)
        self.limit_flops = float(limit_flops)
        self._given = make_schedule(schedule, warmup)
        self._reset()

    def _reset(self) -> None:
        self.schedule = self._given
        self.tag: Hashable = None
        self.spent = self.charged = 0.0
        self.num_steps = self.num_batches = 0
        self.costs = StepCosts()
        self._rates: BudgetLR | None = None
        self._counting = ExitStack()
        self._counter: FlopCounterMode | None = None
        self._key = CostKey((), frozenset(), None)
        self._forward = 0.0
        self._is_over = self._is_counted = False
        self.clock = BatchClock()

    # -- what methods and reports read ---------------------------------------------------------

    @property
    def progress(self) -> float:
        """Share of the budget spent, in [0, 1]; 0 without a limit."""
        return min(1.0, self.spent / self.limit_flops)

    @property
    def cpu_seconds(self) -> float:
        """Processor time of the training batches, probes included, counting left out."""
        return self.clock.seconds

    def can_afford(self, flops: float) -> bool:
        """Whether so much more stays within the limit (up to float rounding)."""
        return self.spent + flops <= self.limit_flops * (1 + 1e-9)

    def charge(self, flops: float) -> None:
        """Book what a method computes beside its training steps.

        Raises:
            ValueError: it does not fit; ask `can_afford` before probing.
        """
        check_number("flops", flops, low=0)
        if not self.can_afford(flops):
            left = self.limit_flops - self.spent
            msg = f"Expected `flops` to be in [0, {left:g}], what is left, but got {flops:g}."
            raise ValueError(msg)
        self.spent += flops
        self.charged += flops

    def summary(self) -> dict[str, float]:
        """The figures of the run as plain data."""
        names = ("limit_flops", "spent", "charged", "num_steps", "num_batches", "cpu_seconds")
        return {name: getattr(self, name) for name in names}

    def rebase(self, trainer: pl.Trainer) -> None:
        """Read the base rates from the groups, to which a method has added and given base rates."""
        self._rates = BudgetLR(trainer.optimizers, self.schedule)

    # -- hooks ---------------------------------------------------------------------------------

    @override
    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if stage == "fit":
            self._reset()
            _refuse_unsupported(trainer, pl_module)

    @override
    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.lr_scheduler_configs:
            msg = "Expected a module without learning-rate schedulers: the budget sets the rate."
            raise MisconfigurationException(msg)
        original = pl_module.on_train_batch_start

        def start(batch: Any, batch_idx: int) -> int | None:
            """Lightning skips the batch, and the rest of the epoch, on -1."""
            return -1 if self._is_over else original(batch, batch_idx)

        pl_module.__dict__["on_train_batch_start"] = start

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.rebase(trainer)

    @override
    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        assert self._rates is not None
        self._rates.set(self.progress)
        names = (n for n, p in pl_module.named_parameters() if p.requires_grad)
        self._key = CostKey(batch_shapes(batch), frozenset(names), self.tag)
        cost = self.costs.known.get(self._key)
        expected = self.costs.bound(self._key.shapes) if cost is None else cost
        if not self.can_afford(expected):
            self._stop(trainer)
        self._is_counted = cost is None
        if self._is_counted and not self._is_over:
            self._counter = self._counting.enter_context(neutral_counter(pl_module))

    @override
    def on_before_backward(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: Any
    ) -> None:
        if self._counter is not None:
            self._forward = float(self._counter.get_total_flops())

    @override
    def on_after_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._counter is None:
            return
        total = float(self._counter.get_total_flops())
        self._close()
        self.costs.add(self._key, forward=self._forward, total=total)
        if self.can_afford(total):
            return
        if self.num_steps == 0:
            msg = f"Expected `limit_flops` to be at least {total:g}, but got {self.limit_flops:g}."
            raise ValueError(msg)
        self._stop(trainer)  # dearer than the bound: the step is not taken and not charged
        pl_module.zero_grad(set_to_none=True)

    @override
    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        self._close()  # still open when the module returned no loss
        self.num_batches += 1
        if self._is_over:
            return
        self.spent += self.costs.known.get(self._key, 0.0)
        self.num_steps = trainer.global_step
        self.clock.stop(self.spent, was_counted=self._is_counted)

    @override
    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._rates is not None:
            self._rates.set(self.progress)

    @override
    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        self._close()

    @override
    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self._close()
        pl_module.__dict__.pop("on_train_batch_start", None)

    def _stop(self, trainer: pl.Trainer) -> None:
        self._is_over = True
        trainer.should_stop = True

    def _close(self) -> None:
        """End counting, whether or not it was going on."""
        self._counter = None
        self._counting.close()


def _refuse_unsupported(trainer: pl.Trainer, module: pl.LightningModule) -> None:
    """Refuse what cannot be accounted for.

    Raises:
        MisconfigurationException: names the setting and what was found.
    """
    budgets = [c for c in trainer.callbacks if isinstance(c, CountedBudget)]
    for name, found, wanted in (
        ("automatic_optimization", module.automatic_optimization, True),
        ("accumulate_grad_batches", trainer.accumulate_grad_batches, 1),
        ("one device", isinstance(trainer.strategy, SingleDeviceStrategy), True),
        ("number of CountedBudget callbacks", len(budgets), 1),
        ("min_epochs", trainer.min_epochs or 0, 0),
        ("min_steps", trainer.min_steps or 0, 0),
    ):
        if found != wanted:
            msg = f"Expected `{name}` to be {wanted}, but got {found}."
            raise MisconfigurationException(msg)
