"""Training everything, the last blocks, the head, or the head first."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import lightning.pytorch as pl
from typing_extensions import override

from lightning_attnbal.core import check_integer, check_number
from lightning_attnbal.trainer import Schedule
from recipes.benchmarks.compare.counted import CountedBudget
from recipes.benchmarks.compare.methods._method import (
    Method,
    UnitTrainer,
    blocks_of,
    heads_of,
    names_of,
)


@dataclass(frozen=True, kw_only=True)
class Full(Method):
    """Everything trains: for fewer steps, where the budget is smaller.

    Source:
        Li, Yumer, Ramanan, "Budgeted Training", ICLR 2020; Kaddour et al., "No Train No Gain",
        NeurIPS 2023: the control that a method has to beat.
    """

    @property
    @override
    def name(self) -> str:
        return "full"


@dataclass(frozen=True, kw_only=True)
class LastK(Method):
    """The last `k` blocks and what follows them train; what is below is frozen, and not cached.

    Args:
        k: blocks, in [1, number of blocks].

    Source:
        Lee, Tang, Lin, "What Would Elsa Do? Freezing Layers During Transformer Fine-Tuning", 2019.
    """

    k: int

    def __post_init__(self) -> None:
        check_integer("k", self.k, low=1)

    @property
    @override
    def name(self) -> str:
        return f"last-{self.k}-uncached"

    @override
    def _callbacks(self, budget: CountedBudget) -> list[pl.Callback]:
        return [_Top(budget, self.k)]


@dataclass(frozen=True, kw_only=True)
class LinearProbe(Method):
    """The head alone trains; features are computed anew in each step, not cached."""

    @property
    @override
    def name(self) -> str:
        return "linear-probe"

    @override
    def _callbacks(self, budget: CountedBudget) -> list[pl.Callback]:
        return [_Top(budget, 0)]


@dataclass(frozen=True, kw_only=True)
class LPFT(Method):
    """The head alone for a share of the budget, then everything; the schedule runs once in each.

    Args:
        share: of the budget for the head alone, in (0, 1).
        probe_lr_factor: learning rate of the first phase relative to the second's, in (0, inf).

    Source:
        Kumar et al., "Fine-Tuning can Distort Pretrained Features and Underperform
        Out-of-Distribution", ICLR 2022. They probe to convergence; here a share of the budget.
    """

    share: float = 0.2
    probe_lr_factor: float = 1.0

    def __post_init__(self) -> None:
        check_number("share", self.share, low=0, high=1, low_open=True, high_open=True)
        check_number("probe_lr_factor", self.probe_lr_factor, low=0, low_open=True)

    @property
    @override
    def name(self) -> str:
        return f"lp-ft-{self.share:g}"

    @override
    def _callbacks(self, budget: CountedBudget) -> list[pl.Callback]:
        return [_ProbeThenTrain(budget, self)]


@dataclass(frozen=True, kw_only=True)
class TwoPhases(Schedule):
    """`each`, run through before `share` of the budget and again after it.

    Args:
        warmup: leave it at 0; `each` has its own.
        each: schedule of either phase.
        share: where the first phase ends, in (0, 1).
        first_factor: scales the first phase.

    Example:
        >>> from lightning_attnbal.trainer import LinearSchedule
        >>> schedule = TwoPhases(each=LinearSchedule(), share=0.5, first_factor=2.0)
        >>> [schedule(p) for p in (0.0, 0.25, 0.5, 0.75, 1.0)]
        [2.0, 1.0, 1.0, 0.5, 0.0]
    """

    each: Schedule
    share: float
    first_factor: float = 1.0

    def _after_warmup(self, t: float) -> float:
        if t < self.share:
            return self.first_factor * self.each(t / self.share)
        return self.each((t - self.share) / (1 - self.share))


class _Top(UnitTrainer):
    """The last `k` blocks and all that follows the lowest of them, to the end."""

    def __init__(self, budget: CountedBudget, k: int) -> None:
        super().__init__(budget)
        self._k = k

    @override
    def first_units(self) -> Collection[str]:
        if self._k == 0:
            return names_of(heads_of(self.units))
        blocks = blocks_of(self.units)
        check_integer("k", self._k, low=1, high=len(blocks))
        lowest = blocks[-self._k].index
        return names_of([unit for unit in self.units if unit.index >= lowest])


class _ProbeThenTrain(UnitTrainer):
    """Thaws everything once the head's share of the budget is spent."""

    def __init__(self, budget: CountedBudget, method: LPFT) -> None:
        super().__init__(budget)
        self._method = method

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        self.budget.schedule = TwoPhases(
            each=self.budget.schedule,
            share=self._method.share,
            first_factor=self._method.probe_lr_factor,
        )

    @override
    def first_units(self) -> Collection[str]:
        return names_of(heads_of(self.units))

    @override
    def before_batch(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any) -> None:
        if len(self.trained) < len(self.units) and self.budget.progress >= self._method.share:
            self.train(names_of(self.units))
