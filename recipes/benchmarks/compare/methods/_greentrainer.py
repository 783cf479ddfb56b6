"""GreenTrainer: the most important units that a share of a full step's FLOPs can train."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import lightning.pytorch as pl
from torch.optim import Optimizer
from typing_extensions import override

from lightning_attnbal.core import UnitLoad, check_integer, check_number
from lightning_attnbal.measure import GradientUpdateMeter, profile
from recipes.benchmarks.compare.counted import CountedBudget
from recipes.benchmarks.compare.methods._method import Method, UnitTrainer, names_of
from recipes.benchmarks.compare.methods._probe import loss_of


@dataclass(frozen=True, kw_only=True)
class GreenTrainer(Method):
    """Every `period_epochs` epochs, one step trains everything; then only what matters most.

    In that step the importance of a unit is the product of its gradient and its update. The
    selection maximises the sum of importances subject to a step costing at most `ratio` of a full
    one, by a dynamic programme over units in backward order.

    Args:
        ratio: ρ, cost of a step relative to training everything, in (0, 1].
        period_epochs: epochs between selections, in [1, inf).
        resolution: T_q, steps that the cost of a full step is cut into, in [2, inf).

    Source:
        Huang, Yin, Huang, Gao, "Towards Green AI in Fine-tuning Large Language Models via Adaptive
        Backpropagation", ICLR 2024. They select tensors, we units, by our costs of them.
    """

    ratio: float = 0.5
    period_epochs: int = 1
    resolution: int = 1000

    def __post_init__(self) -> None:
        check_number("ratio", self.ratio, low=0, high=1, low_open=True)
        check_integer("period_epochs", self.period_epochs, low=1)
        check_integer("resolution", self.resolution, low=2)

    @property
    @override
    def name(self) -> str:
        return f"greentrainer-{self.ratio:g}"

    @override
    def _callbacks(self, budget: CountedBudget) -> list[pl.Callback]:
        return [_MostImportant(budget, self)]


def select_units(
    loads: Sequence[UnitLoad], importance: Mapping[str, float], ratio: float, resolution: int
) -> list[str]:
    """Names of the units to train, forward order; the cheapest one where nothing else fits.

    Best(k, t) is the largest importance of a selection whose lowest unit is k and whose backward
    pass costs at most t. Extending one whose lowest unit is j downwards to k < j costs k's own
    gradients, dX through j and through all units between. Costs are floored to `resolution` steps
    of a full step, as in the paper: what costs less than a step is free.

    Args:
        loads: measured units, forward order.
        importance: unit name → gradient · update; other units are never selected.
        ratio: ρ, in (0, 1].
        resolution: T_q, in [2, inf).
    """
    full = sum(load.flops.total for load in loads)
    limit = math.floor((ratio - sum(load.flops.forward for load in loads) / full) * resolution)
    known = [i for i, load in enumerate(loads) if load.unit.name in importance]
    best: dict[int, list[tuple[float, tuple[int, ...]]]] = {}
    for k in reversed(known):
        value = importance[loads[k].unit.name]
        row = [(-math.inf, ())] * (limit + 1)
        for above in (None, *(j for j in known if j > k)):
            cost = math.floor(_extension(loads, k, above) / full * resolution)
            for t in range(max(0, cost), limit + 1):
                old, chosen = (0.0, ()) if above is None else best[above][t - cost]
                if old + value > row[t][0]:
                    row[t] = (old + value, (k, *chosen))
        best[k] = row
    ends = [row[-1] for row in best.values() if row and row[-1][1]]
    cheapest = min(known, key=lambda k: _extension(loads, k, None))
    chosen = max(ends)[1] if ends else (cheapest,)
    return [loads[k].unit.name for k in chosen]


def _extension(loads: Sequence[UnitLoad], k: int, above: int | None) -> float:
    """Backward FLOPs that training k adds to a selection whose lowest unit is `above`."""
    between = loads[k + 1 : above]
    cost = loads[k].flops.own_backward + sum(load.flops.pass_backward for load in between)
    return cost + (0.0 if above is None else loads[above].flops.input_grad)


class _MostImportant(UnitTrainer):
    """Measures importance on a step that trains everything, which is an ordinary, charged step.

    Hooks beside the parent's: `on_before_optimizer_step`, `on_train_batch_end`.
    """

    def __init__(self, budget: CountedBudget, method: GreenTrainer) -> None:
        super().__init__(budget)
        self._method = method
        self._loads: Sequence[UnitLoad] = ()
        self._meter: GradientUpdateMeter | None = None
        self._epoch: int | None = None

    @override
    def prepare_units(self, pl_module: pl.LightningModule) -> None:
        self._loads, self._meter, self._epoch = (), None, None

    @override
    def first_units(self) -> Collection[str]:
        return names_of(self.units)

    @override
    def before_batch(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any) -> None:
        if not self._loads:
            report = profile(
                pl_module, batch, units=None, forward=lambda m, b: loss_of(m, b), seconds=False
            )
            self._loads = report.loads
            self.budget.charge(sum(load.flops.forward for load in report.loads))
        epoch = trainer.current_epoch
        if self._epoch is None or epoch >= self._epoch + self._method.period_epochs:
            self._epoch = epoch
            self._meter = GradientUpdateMeter(pl_module, [load.unit for load in self._loads])
            self.train(self.first_units())

    @override
    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        if self._meter is not None:
            self._meter.before_step()

    @override
    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        if self._meter is None:
            return
        self._meter.after_step(trainer.optimizers)
        importance = {name: found.mean for name, found in self._meter.compute().items()}
        if importance:  # none while a warm-up's rate is 0: then the next step is measured
            self._meter = None
            settings = (self._method.ratio, self._method.resolution)
            self.train(select_units(self._loads, importance, *settings))
