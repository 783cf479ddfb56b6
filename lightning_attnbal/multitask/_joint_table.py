"""One task in all cases: what each share of the steps at each of its plans costs and brings.

A case is a length of the cached prefix with a total number of steps.
Array legend: D lengths of the prefix, P cases, N some of them, G shares (0, 1/G, …, 1: G + 1
entries), J plans.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from typing import Self

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from lightning_attnbal.multitask._joint_terms import Array, Indices, TaskTerms


@dataclass(frozen=True, slots=True, eq=False)
class Cases:
    """All lengths of the prefix times all totals, in this order.

    Args:
        depth: (P,), length of the prefix.
        total: (P,), steps of all tasks together.
        shares: (G + 1,), rising from 0.
        steps: (P, G + 1), steps of a task by its share.
    """

    depth: Indices
    total: Array
    shares: Array
    steps: Array

    @classmethod
    def cross(cls, num_depths: int, totals: Array, shares: Array) -> Self:
        """Prefixes of 0, 1, … units, each with all of the totals."""
        total = np.tile(totals, num_depths)
        depth = np.repeat(np.arange(num_depths), len(totals))
        return cls(depth, total, shares, total[:, None] * shares)

    @property
    def grid(self) -> int:
        """G."""
        return len(self.shares) - 1


@dataclass(frozen=True, kw_only=True, eq=False)
class TaskTable(ABC):
    """Costs and gains of one task.

    Args:
        terms: of the task.
        cases: the cases.
        low: least share in units of 1 / G.
        high: largest share in units of 1 / G.
        cost: (D, J), per step; the first plan is repeated where there are fewer.
        once: (D,), one-off.
        is_open: (D,), whether there is any plan.
        least: gains below it are not allowed.
    """

    terms: TaskTerms
    cases: Cases
    low: int
    high: int
    cost: Array
    once: Array
    is_open: NDArray[np.bool_]
    least: float = -np.inf

    @abstractmethod
    def gains(self, at: Indices) -> Array:
        """Weighted gain by share and plan, (N, G + 1, J); not finite where not allowed."""

    @abstractmethod
    def gain(self, at: Indices, share: Indices, plan: Indices) -> Array:
        """The weighted gain, (N,), of a share above 0 and a plan in each case."""

    def best(self, at: Indices, gain: float, price: Array) -> tuple[Array, Indices]:
        """The most of `gain` · gain - price · cost by share, and by which plan, (G + 1, N).

        Args:
            at: (N,), cases.
            gain: factor of the gain, 0 or 1.
            price: (N,), factor of the cost.
        """
        steps, cost = self.cases.steps[at], self.cost[self.cases.depth[at]]
        gains = self.gains(at)
        paid = (price[:, None] * steps)[:, :, None] * cost[:, None]
        score = np.where(self._allowed(gains), gains * gain - paid if gain else -paid, -np.inf)
        plan = score.argmax(axis=2)
        top = np.take_along_axis(score, plan[:, :, None], axis=2)[:, :, 0]
        return self._bounded(at, top - price[:, None] * self._once(at)), plan.T

    def figures(self, at: Indices, share: Indices, plan: Indices) -> tuple[Array, Array]:
        """Gain and cost, (N,), of a share and a plan in each case."""
        cost = self.cost[self.cases.depth[at], plan] * self.cases.steps[at, share]
        gain = np.where(share > 0, self.gain(at, share, plan), 0.0)
        return gain, cost + self._once(at)[np.arange(len(at)), share]

    def options(self, case: int) -> tuple[Indices, Indices, Array, Array]:
        """Share, plan, gain and cost of all that is allowed in a case; one plan for no share."""
        num_plans = self.cost.shape[1]
        share, plan = np.divmod(np.arange((self.cases.grid + 1) * num_plans), num_plans)
        gain, cost = self.figures(np.full(len(share), case), share, plan)
        within = (share >= self.low) & (share <= self.high)
        within &= np.where(share > 0, self.is_open[self.cases.depth[case]], plan == 0)
        kept = (within & self._allowed(gain)).nonzero()[0]
        return share[kept], plan[kept], gain[kept], cost[kept]

    def _allowed(self, gain: Array) -> NDArray[np.bool_]:
        return np.isfinite(gain) & (gain >= self.least)

    def _once(self, at: Indices) -> Array:
        """One-off cost by share, (N, G + 1)."""
        paid = np.minimum(1.0, self.cases.steps[at] / (self.terms.epoch_steps or 1))
        return paid * self.once[self.cases.depth[at], None]

    def _bounded(self, at: Indices, score: Array) -> Array:
        """Scores by share, (G + 1, N), -inf beyond floor and cap and where there is no plan."""
        score[:, 0] = 0.0 if self.least <= 0 else -np.inf
        score[:, : self.low] = score[:, self.high + 1 :] = -np.inf
        score[~self.is_open[self.cases.depth[at]], 1:] = -np.inf
        return np.ascontiguousarray(score.T)


@dataclass(frozen=True, kw_only=True, eq=False)
class CurvedTable(TaskTable):
    """A task with a gain of its own: `table` holds it, (P, G + 1, J)."""

    table: Array

    @override
    def gains(self, at: Indices) -> Array:
        return self.table[at]

    @override
    def gain(self, at: Indices, share: Indices, plan: Indices) -> Array:
        return self.table[at, share, plan]


@dataclass(frozen=True, kw_only=True, eq=False)
class AdditiveTable(TaskTable):
    """A task whose gain is steps · `value`, (D, J): one plan is the best for every share."""

    value: Array

    @override
    def gains(self, at: Indices) -> Array:
        return self.cases.steps[at][:, :, None] * self.value[self.cases.depth[at], None]

    @override
    def gain(self, at: Indices, share: Indices, plan: Indices) -> Array:
        return self.cases.steps[at, share] * self.value[self.cases.depth[at], plan]

    @override
    def best(self, at: Indices, gain: float, price: Array) -> tuple[Array, Indices]:
        if np.isfinite(self.least):
            return super().best(at, gain, price) if gain else self._cheapest(at, price)
        depth = self.cases.depth[at]
        rate = gain * self.value[depth] - price[:, None] * self.cost[depth]
        plan = rate.argmax(axis=1)
        top = self.cases.steps[at] * np.take_along_axis(rate, plan[:, None], axis=1)
        top -= price[:, None] * self._once(at)
        return self._bounded(at, top), np.broadcast_to(plan, (self.cases.grid + 1, len(at)))

    def _cheapest(self, at: Indices, price: Array) -> tuple[Array, Indices]:
        """As `best` without gains: plans come by rising cost, so it is the first that is allowed.

        (The worst task asks for this again and again, at other least gains.)
        """
        allowed = self.gains(at) >= self.least
        plan = allowed.argmax(axis=2)
        is_any = np.take_along_axis(allowed, plan[:, :, None], axis=2)[:, :, 0]
        cost = np.take_along_axis(self.cost[self.cases.depth[at]], plan, axis=1)
        paid = price[:, None] * (self.cases.steps[at] * cost + self._once(at))
        return self._bounded(at, np.where(is_any, -paid, -np.inf)), plan.T

    def curved(self, table: Array) -> CurvedTable:
        """The same costs with gains (P, G + 1, J) of their own."""
        common = {field.name: getattr(self, field.name) for field in fields(TaskTable)}
        return CurvedTable(**common, table=table)
