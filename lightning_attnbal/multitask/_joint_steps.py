"""From shares to whole steps that keep the budget."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from lightning_attnbal.allocate import Limits
from lightning_attnbal.multitask._joint_terms import Array, Levels, TaskTerms
from lightning_attnbal.multitask._order import apportion

_ROUNDING = 1e-9
_FURTHER = 0.01  # of the steps, by which to look ahead


@dataclass(frozen=True, slots=True, kw_only=True)
class Spender:
    """A task with a share, at its plan.

    Args:
        terms: of the task.
        share: in (0, 1].
        levels: its plan.
        once: one-off cost.
    """

    terms: TaskTerms
    share: float
    levels: Levels
    once: float

    @property
    def cost(self) -> float:
        """Cost per step of the task."""
        return self.terms.problem.evaluate(self.levels)[0]

    def gain(self, steps: Array) -> Array:
        """Weighted gain of so many steps, (N,) to (N,)."""
        if self.terms.gain is None:
            return self.terms.weight * self.terms.problem.evaluate(self.levels)[1] * steps
        return self.terms.weight * self.terms.gain(self.levels, steps)

    def spends(self, steps: float) -> float:
        """Cost of so many steps."""
        return steps * self.cost + self.terms.once(steps, self.once)


def whole_steps(
    spenders: Sequence[Spender], total: float, limits: Limits
) -> tuple[float, dict[str, int], float]:
    """Steps in all, whole steps by task, and their cost, at most what remains.

    All steps that the budget pays for in these shares, at least `total`, at most `max_steps`; by
    largest remainder, and a step less in all until that is within the budget.
    """
    price = cost_of_a_step(spenders)
    room = limits.remaining - sum(spender.once for spender in spenders)
    if price:
        total = max(total, min(room / price, limits.max_steps or room / price))
    num = int(total + _ROUNDING)
    while True:
        counts = apportion({spender.terms.name: spender.share for spender in spenders}, num)
        cost = sum(spender.spends(counts[spender.terms.name]) for spender in spenders)
        if cost <= limits.remaining:
            return total, counts, cost
        num -= 1


def cost_of_a_step(spenders: Sequence[Spender]) -> float:
    """Cost of a step of the mix, one-off costs aside."""
    return sum(spender.share * spender.cost for spender in spenders)


def further_gain(
    spenders: Sequence[Spender], total: float, limits: Limits, join: Callable[..., Array]
) -> float:
    """What the next steps in these shares gain per cost; 0 at `max_steps` or if they are free.

    Args:
        spenders: the tasks that have a share.
        total: steps in all.
        limits: what is left.
        join: `np.sum` or `np.min`, over the spenders.
    """
    price = cost_of_a_step(spenders)
    if not price or total >= (limits.max_steps or math.inf):
        return 0.0
    steps = total * np.array([1.0, 1.0 + _FURTHER])
    before, after = join([s.gain(steps * s.share) for s in spenders], axis=0)
    return max(0.0, float(after - before) / (_FURTHER * total * price))
