"""DropBP: residual branches leave the backward pass at random, sensitive ones less often."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import lightning.pytorch as pl
from torch import Tensor
from typing_extensions import override

from lightning_attnbal.core import UnsupportedModelError, check_number
from lightning_attnbal.measure import discover_units
from recipes.benchmarks.compare._step_costs import batch_shapes, neutral_counter
from recipes.benchmarks.compare.counted import CountedBudget
from recipes.benchmarks.compare.methods._branches import (
    BranchDropper,
    backward_saved,
    branches_of,
    squared_distance,
)
from recipes.benchmarks.compare.methods._method import Method, blocks_of, own_generator
from recipes.benchmarks.compare.methods._probe import gradients, loss_of

_STEP = 0.1  # of a drop rate, in the greedy allocation
_SEARCH = 4.0  # forward passes: one, and two of each block with their skip paths' gradients


@dataclass(frozen=True, kw_only=True)
class DropBP(Method):
    """Leaves each residual branch (attention, feed-forward) out of the backward pass at random.

    All branches start with the same drop rate. Once `adjust_at` of the budget is spent, the rates
    are set by sensitivity, such that on average the same share of their backward FLOPs is dropped.

    Args:
        rate: share of the branches' backward FLOPs that is dropped, in (0, 1).
        adjust_at: share of the budget, in [0, 1); None keeps one rate for all. The adjustment takes
            one forward and backward pass per branch, which are charged; it is left out where the
            budget has no room for them.

    Source:
        Woo et al., "DropBP: Accelerating Fine-Tuning of Large Language Models by Dropping Backward
        Propagation", NeurIPS 2024.
    """

    rate: float = 0.5
    adjust_at: float | None = 0.1

    def __post_init__(self) -> None:
        check_number("rate", self.rate, low=0, high=1, low_open=True, high_open=True)
        if self.adjust_at is not None:
            check_number("adjust_at", self.adjust_at, low=0, high=1, high_open=True)

    @property
    @override
    def name(self) -> str:
        return f"dropbp-{self.rate:g}{'' if self.adjust_at is not None else '-uniform'}"

    @override
    def _callbacks(self, budget: CountedBudget) -> list[pl.Callback]:
        return [_RandomBranches(budget, self)]


def greedy_rates(
    sensitivities: Sequence[float], flops: Sequence[float], rate: float
) -> list[float]:
    """Drop rates that drop `rate` of all FLOPs, raised in steps of 0.1 where that hurts least.

    To raise the rate of branch i to p hurts by S_i · p, so that rates are spread out.

    Args:
        sensitivities: S_i, squared change of the gradients when only branch i is dropped.
        flops: what dropping each branch saves.
        rate: share to drop, in (0, 1).

    Example:
        >>> greedy_rates([1.0, 3.0], [10.0, 10.0], rate=0.5)
        [0.8, 0.2]
    """
    steps = [0] * len(flops)
    saved, wanted = 0.0, rate * sum(flops)
    queue = [(sensitivity * _STEP, i) for i, sensitivity in enumerate(sensitivities)]
    heapq.heapify(queue)
    while queue and saved < wanted * (1 - 1e-9):
        _, i = heapq.heappop(queue)
        steps[i] += 1
        saved += _STEP * flops[i]
        if steps[i] * _STEP < 1 - 1e-9:
            heapq.heappush(queue, (sensitivities[i] * _STEP * (steps[i] + 1), i))
    return [round(count * _STEP, 1) for count in steps]


class _RandomBranches(pl.Callback):
    """Draws at each batch which branches to drop.

    Hooks: `on_train_start`, `on_train_batch_start`, `on_exception`, `teardown`.

    Attributes:
        rates: drop rate of each branch, forward order.
    """

    def __init__(self, budget: CountedBudget, method: DropBP) -> None:
        self._budget, self._method = budget, method
        self._forget()

    def _forget(self) -> None:
        self.rates: list[float] = []
        self._dropper: BranchDropper | None = None
        self._is_adjusted = self._method.adjust_at is None
        self._generator = own_generator("dropbp")

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._forget()

    @override
    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        dropper = self._dropper or self._find(pl_module, batch)
        if not self._is_adjusted and self._budget.progress >= (self._method.adjust_at or 0.0):
            self._adjust(pl_module, batch, dropper)
        drawn = [number for number, p in enumerate(self.rates) if self._generator.random() < p]
        dropper.drop(drawn)
        self._budget.tag = frozenset(drawn)

    def _find(self, module: pl.LightningModule, batch: Any) -> BranchDropper:
        blocks = blocks_of(discover_units(module))
        forward = 0.0

        def run() -> None:
            nonlocal forward
            with neutral_counter(module) as counter:
                loss_of(module, batch)
            forward = float(counter.get_total_flops())

        branches = branches_of(module, blocks, run)
        self._budget.charge(_SEARCH * forward)
        self._budget.costs.add_forward(batch_shapes(batch), forward)
        if not branches:
            msg = "Expected a model with residual branches that can be cut, but found none."
            raise UnsupportedModelError(msg)
        self.rates = [self._method.rate] * len(branches)
        self._dropper = BranchDropper(branches)
        return self._dropper

    def _adjust(self, module: pl.LightningModule, batch: Any, dropper: BranchDropper) -> None:
        self._is_adjusted = True
        runs = 1 + len(self.rates)
        if not self._budget.can_afford(runs * self._budget.costs.bound(batch_shapes(batch))):
            return
        dropper.drop(())
        whole, total = _counted_gradients(module, batch)
        distances, costs = [], []
        for number in range(len(self.rates)):
            dropper.drop([number])
            found, cost = _counted_gradients(module, batch)
            distances.append(squared_distance(whole, found))
            costs.append(cost)
        self._budget.charge(total + sum(costs))
        self.rates = greedy_rates(distances, backward_saved(total, costs), self._method.rate)

    @override
    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        self._undo()

    @override
    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self._undo()

    def _undo(self) -> None:
        if self._dropper is not None:
            self._dropper.drop(())


def _counted_gradients(module: pl.LightningModule, batch: Any) -> tuple[list[Tensor | None], float]:
    with neutral_counter(module) as counter:
        found = gradients(module, batch, list(module.parameters()))
    return found, float(counter.get_total_flops())
