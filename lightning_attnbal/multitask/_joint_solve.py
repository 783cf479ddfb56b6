"""The best shares and plans over all cases, by total gain or by the worst task's gain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from lightning_attnbal.multitask._joint_dual import ROUNDING, Dual, Mix, least_cost, solve_dual
from lightning_attnbal.multitask._joint_lists import solve_lists
from lightning_attnbal.multitask._joint_table import TaskTable
from lightning_attnbal.multitask._joint_terms import Array, Indices

_POOL = 4096  # gains that one bisection looks at
_STRIDE = 8  # of the cases, for a first value that most cases do not reach


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """The best case and its mix.

    Args:
        case: which one.
        mix: one share and plan per task.
        value: the objective.
        bound: proven upper bound of it.
        price: what one more unit of budget would add.
    """

    case: int
    mix: Mix
    value: float
    bound: float
    price: float


def solve_sum(tables: Sequence[TaskTable], budget: float, at: Indices) -> Answer | None:
    """The largest Σ gain over the cases `at`, None if nothing fits.

    The dual bounds every case; cases that could beat the best mix known are solved by lists, the
    most promising first, each at first with the shares that its dual came to. Of cases with equal
    gains the cheapest one is taken.
    """
    dual = solve_dual(tables, budget, at)
    if not np.isfinite(dual.bound).any():
        return None
    case = _cheapest_best(dual)
    mix = dual.mix.take(np.array([case]))
    bound = dual.bound.copy()
    for i in np.argsort(-dual.bound, kind="stable"):
        value = float(mix.gain[0])
        if bound[i] <= value + ROUNDING * abs(value):
            break
        for shares in (dual.mix.share[:, i], dual.beyond.share[:, i], None):
            value, price = float(mix.gain[0]), float(dual.price[i])
            found, top = solve_lists(tables, int(at[i]), budget, price, value, shares)
            if found is not None and found.gain[0] > value:
                case, mix = int(i), found
        bound[i] = top
    value = float(mix.gain[0])
    top = max(value, float(bound.max()))
    top = value if top <= value + ROUNDING * abs(value) else top
    return Answer(int(at[case]), mix, value, top, float(dual.price[case]))


def _cheapest_best(dual: Dual) -> int:
    """Position of the largest gain, and of equal ones the cheapest."""
    gain = np.where(np.isfinite(dual.bound), dual.mix.gain, -np.inf)
    top = gain.max()
    ties = (gain >= top - ROUNDING * abs(top)).nonzero()[0]
    return int(ties[dual.mix.cost[ties].argmin()])


def solve_worst(tables: Sequence[TaskTable], budget: float, at: Indices) -> Answer | None:
    """The largest least gain over the cases `at`, None if nothing fits.

    Among all choices that reach it, the one with the largest Σ gain.
    """
    reach = _Reach(tables, budget)
    some = reach.keeping(-np.inf, at[::_STRIDE])
    low = _climb(reach, some, -np.inf)[0] if some.size else -np.inf
    cases = reach.keeping(low, at)
    if not cases.size:
        return None
    low, high, cases = _climb(reach, cases, low)
    answer = solve_sum([replace(table, least=low) for table in tables], budget, cases)
    assert answer is not None
    return replace(answer, value=low, bound=low, price=reach.slope(low, high, cases))


def _climb(reach: _Reach, cases: Indices, low: float) -> tuple[float, float, Indices]:
    """The largest least gain of some cases that reach `low`, the next one, and who reaches it."""
    high = np.inf
    while True:
        pool = np.concatenate([_between(table.gains(cases), low, high) for table in reach.tables])
        pool = np.append(pool, 0.0) if low < 0 < high else pool
        if not pool.size:
            return low, high, cases
        pool = np.unique(pool[:: 1 + len(pool) // _POOL])
        low, high, cases = _bisect(reach, pool, (low, high), cases)


def _between(gains: Array, low: float, high: float) -> Array:
    inner: Array = gains[(gains > low) & (gains < high)]
    return inner


@dataclass(frozen=True, slots=True, eq=False)
class _Reach:
    """Which least gains a budget allows."""

    tables: Sequence[TaskTable]
    budget: float

    def cost(self, least: float, at: Indices) -> Array:
        """The least cost, (N,), at which every task gains so much; inf where none does."""
        tables = [replace(table, least=least) for table in self.tables]
        return least_cost(tables, at)

    def keeping(self, least: float, at: Indices) -> Indices:
        """The cases in which that is within the budget."""
        kept: Indices = at[self.cost(least, at) <= self.budget * (1 + ROUNDING)]
        return kept

    def slope(self, low: float, high: float, at: Indices) -> float:
        """Gain per cost on the way to the next least gain, 0 if there is none."""
        cost = float(self.cost(high, at).min()) if np.isfinite(high) else np.inf
        return (high - low) / (cost - self.budget) if np.isfinite(cost) else 0.0


def _bisect(
    reach: _Reach, pool: Array, ends: tuple[float, float], cases: Indices
) -> tuple[float, float, Indices]:
    """The largest of the rising `pool` that is reached, the next one, and the cases reaching it."""
    low, high = -1, len(pool)
    while high - low > 1:
        middle = (low + high) // 2
        kept = reach.keeping(float(pool[middle]), cases)
        low, high, cases = (middle, high, kept) if kept.size else (low, middle, cases)
    reached = ends[0] if low < 0 else float(pool[low])
    return reached, ends[1] if high == len(pool) else float(pool[high]), cases
