"""FreezeOut: each layer's rate falls along its own cosine, the lowest layers' first."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import lightning.pytorch as pl
from torch.optim import Optimizer
from typing_extensions import override

from lightning_attnbal.core import Unit, check_number
from recipes.benchmarks.compare.counted import CountedBudget
from recipes.benchmarks.compare.methods._method import (
    Method,
    UnitTrainer,
    has_trainable,
    names_of,
)


@dataclass(frozen=True, kw_only=True)
class FreezeOut(Method):
    """Unit i trains until share t_i of the budget, its rate falling along half a cosine.

        α_i(t) = α_i(0) · (1 + cos(π t / t_i)) / 2 for t < t_i, and frozen from there on,

    with t_i rising linearly from `first_end` to 1 over the units, and then cubed if `is_cubic`.
    These schedules replace the budget's, but for its warm-up.

    Args:
        first_end: t_0, before it is cubed, in (0, 1].
        is_cubic: whether the ends are cubed: low layers freeze much earlier.
        is_scaled: α_i(0) = α / t_i, which gives every layer the same integral of its rate.

    Source:
        Brock, Lim, Ritchie, Weston, "FreezeOut: Accelerate Training by Progressively Freezing
        Layers", 2017; cubic, scaled and 0.8 are the defaults they recommend.
    """

    first_end: float = 0.8
    is_cubic: bool = True
    is_scaled: bool = True

    def __post_init__(self) -> None:
        check_number("first_end", self.first_end, low=0, high=1, low_open=True)

    @property
    @override
    def name(self) -> str:
        shape = "cubic" if self.is_cubic else "linear"
        return f"freezeout-{shape}{'-scaled' if self.is_scaled else ''}-{self.first_end:g}"

    def ends(self, num_units: int) -> list[float]:
        """Share of the budget at which each unit freezes, forward order, in (0, 1].

        Example:
            >>> FreezeOut(first_end=0.5, is_cubic=False).ends(3)
            [0.5, 0.75, 1.0]
        """
        step = (1 - self.first_end) / max(1, num_units - 1)
        linear = [1.0 - step * (num_units - 1 - i) for i in range(num_units)]
        return [end**3 for end in linear] if self.is_cubic else linear

    def factor(self, progress: float, end: float) -> float:
        """Learning rate of a unit that freezes at `end`, relative to the base rate.

        Example:
            >>> [FreezeOut().factor(p, end=0.5) for p in (0.0, 0.25, 0.5, 0.75)]
            [2.0, 1.0, 0.0, 0.0]
        """
        if progress >= end:
            return 0.0
        shape = (1 + math.cos(math.pi * progress / end)) / 2
        return shape / end if self.is_scaled else shape

    @override
    def _callbacks(self, budget: CountedBudget) -> list[pl.Callback]:
        return [_LayerwiseRates(budget, self)]


class _LayerwiseRates(UnitTrainer):
    """Splits the optimizer's groups by unit, and sets each group's rate just before each step.

    Hooks beside the parent's: `on_before_optimizer_step`.
    """

    def __init__(self, budget: CountedBudget, method: FreezeOut) -> None:
        super().__init__(budget)
        self._method = method
        self._ends: dict[str, float] = {}
        self._groups: list[tuple[dict[str, Any], float, float]] = []

    @override
    def prepare_units(self, pl_module: pl.LightningModule) -> None:
        active = [unit.name for unit in self.units if has_trainable(pl_module, unit)]
        self._ends = dict(zip(active, self._method.ends(len(active)), strict=True))

    @override
    def first_units(self) -> Collection[str]:
        return names_of(self.units)

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        for optimizer in trainer.optimizers:
            split_groups(optimizer, pl_module, self.units)
        self._groups = [
            (group, float(group["lr"]), self._ends.get(group["unit"], 1.0))
            for optimizer in trainer.optimizers
            for group in optimizer.param_groups
        ]

    @override
    def before_batch(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any) -> None:
        now = self.budget.progress
        active = frozenset(u.name for u in self.units if now < self._ends.get(u.name, 1.0))
        if active and active != self.trained:
            self.train(active)

    @override
    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        progress, warmup = self.budget.progress, self.budget.schedule.warmup
        warm = progress / warmup if progress < warmup else 1.0
        for group, base, end in self._groups:
            group["lr"] = base * warm * self._method.factor(progress, end)


def split_groups(optimizer: Optimizer, module: pl.LightningModule, units: Collection[Unit]) -> None:
    """One parameter group per unit and former group, settings unchanged, its unit under `unit`."""
    parameters = dict(module.named_parameters(remove_duplicate=False))
    unit_of = {id(parameters[n]): unit.name for unit in units for n in unit.parameters}
    split = []
    for group in optimizer.param_groups:
        parts: dict[str, list[Any]] = {}
        for parameter in group["params"]:
            parts.setdefault(unit_of.get(id(parameter), ""), []).append(parameter)
        split += [{**group, "params": part, "unit": unit} for unit, part in parts.items()]
    optimizer.param_groups[:] = split  # in place: Lightning's wrapper holds on to the list
