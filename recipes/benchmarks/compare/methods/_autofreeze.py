"""AutoFreeze: the lowest blocks freeze once their gradients change little."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer
from typing_extensions import override

from lightning_attnbal.core import check_integer, check_number
from recipes.benchmarks.compare.counted import CountedBudget
from recipes.benchmarks.compare.methods._method import (
    Method,
    UnitTrainer,
    blocks_of,
    has_trainable,
    names_of,
)


@dataclass(frozen=True, kw_only=True)
class AutoFreeze(Method):
    """Freezes the longest prefix of blocks whose gradient norm changed less than a percentile.

    With Δ_l(T) the sum of block l's gradients over the T-th interval, the change is

        η_l = | ‖Δ_l(T - 1)‖ - ‖Δ_l(T)‖ | / ‖Δ_l(T - 1)‖.

    Block l freezes after interval T if every block below is frozen and η_l is below the percentile
    of the changes of the blocks that still train. So the last block never freezes.

    Args:
        percentile: in (0, 100]; the paper's is the median.
        num_intervals: in the whole budget, in [2, inf); the authors' runs have 20.

    Source:
        Liu, Agarwal, Venkataraman, "AutoFreeze: Automatically Freezing Model Blocks to Accelerate
        Fine-tuning", 2021, the gradient norm test; without their cache.
    """

    percentile: float = 50.0
    num_intervals: int = 20

    def __post_init__(self) -> None:
        check_number("percentile", self.percentile, low=0, high=100, low_open=True)
        check_integer("num_intervals", self.num_intervals, low=2)

    @property
    @override
    def name(self) -> str:
        return f"autofreeze-p{self.percentile:g}"

    @override
    def _callbacks(self, budget: CountedBudget) -> list[pl.Callback]:
        return [_Prefix(budget, self)]


def frozen_prefix(
    before: Mapping[str, float], now: Mapping[str, float], percentile: float
) -> list[str]:
    """Names of the blocks to freeze, of those that train, forward order.

    Args:
        before: block → norm of its summed gradients in the last interval.
        now: the same for this interval.
        percentile: in (0, 100].

    Example:
        >>> before = {"a": 1.0, "b": 1.0, "c": 1.0, "d": 1.0}
        >>> frozen_prefix(before, {"a": 1.1, "b": 0.9, "c": 2.0, "d": 1.01}, percentile=70)
        ['a', 'b']
    """
    changes = {
        name: abs(before[name] - norm) / before[name] if before[name] else 0.0
        for name, norm in now.items()
    }
    if not changes:
        return []
    threshold = float(np.percentile(list(changes.values()), percentile))
    frozen: list[str] = []
    for name, change in changes.items():
        if change >= threshold:
            break
        frozen.append(name)
    return frozen


class _Prefix(UnitTrainer):
    """Sums the gradients that training computes anyway and tests them at the intervals' ends.

    Hooks beside the parent's: `on_before_optimizer_step`.
    """

    def __init__(self, budget: CountedBudget, method: AutoFreeze) -> None:
        super().__init__(budget)
        self._method = method
        self._blocks: list[str] = []
        self._sums: dict[str, list[Tensor]] = {}
        self._norms: dict[str, float] = {}
        self._interval = 0

    @override
    def prepare_units(self, pl_module: pl.LightningModule) -> None:
        if not math.isfinite(self.budget.limit_flops):
            msg = "Expected `limit_flops` to be finite, as intervals are shares of it, but got inf."
            raise ValueError(msg)
        self._blocks = [u.name for u in blocks_of(self.units) if has_trainable(pl_module, u)]
        self._sums, self._norms, self._interval = {}, {}, 0

    @override
    def first_units(self) -> Collection[str]:
        return names_of(self.units)

    @override
    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        parameters = dict(pl_module.named_parameters())
        for unit in blocks_of(self.units):
            if unit.name in self.trained and unit.name in self._blocks:
                found = [parameters[n].grad for n in unit.parameters if n in parameters]
                grads = [grad.detach() for grad in found if grad is not None]
                sums = self._sums.setdefault(unit.name, [torch.zeros_like(g) for g in grads])
                torch._foreach_add_(sums, grads)

    @override
    def before_batch(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any) -> None:
        steps = self.budget.num_steps
        if steps == 1:
            length = self.budget.limit_flops / self.budget.spent / self._method.num_intervals
            self._interval = max(1, round(length))
        if steps and steps % self._interval == 0:
            self._end_interval()

    def _end_interval(self) -> None:
        now = {
            name: float(torch.linalg.vector_norm(torch.stack(torch._foreach_norm(sums))))
            for name, sums in self._sums.items()
        }
        before, self._norms, self._sums = self._norms, now, {}
        frozen = frozen_prefix(before, now, self._method.percentile) if before else []
        if frozen:
            top = max(unit.index for unit in self.units if unit.name in frozen)
            self.train([unit.name for unit in self.units if unit.index > top])
            self._norms = {name: norm for name, norm in now.items() if name not in frozen}
