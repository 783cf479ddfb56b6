"""Shares and plans under a price λ, and the price at which they just keep the budget.

Array legend: T tasks, P cases, N some of them, G shares (G + 1 entries).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from lightning_attnbal.multitask._joint_table import TaskTable
from lightning_attnbal.multitask._joint_terms import Array, Indices

_ROUNDS = 40
ROUNDING = 1e-12
"""Relative error of sums in different order; a difference below it counts as none."""


@dataclass(frozen=True, slots=True, eq=False)
class Mix:
    """A share and a plan for every task in each of N cases.

    Args:
        score: (N,), Σ gain - λ · cost; -inf where floors and caps leave nothing.
        gain: (N,), Σ.
        cost: (N,), Σ.
        share: (T, N), in units of 1 / G.
        plan: (T, N).
    """

    score: Array
    gain: Array
    cost: Array
    share: Indices
    plan: Indices

    def put(self, where: Indices, other: Self) -> None:
        """Overwrite the cases at positions `where`."""
        self.score[where], self.gain[where], self.cost[where] = other.score, other.gain, other.cost
        self.share[:, where], self.plan[:, where] = other.share, other.plan

    def take(self, where: Indices) -> Mix:
        """Some of the cases."""
        figures = self.score[where], self.gain[where], self.cost[where]
        return Mix(*figures, self.share[:, where], self.plan[:, where])


@dataclass(frozen=True, slots=True, eq=False)
class Dual:
    """What a budget can buy in each case.

    Args:
        bound: (P,), proven upper bound of the gain; -inf where nothing fits.
        price: (P,), the λ that proves it.
        mix: the best mixes found that keep the budget.
        beyond: the mixes next to them at that price which do not, or the same.
    """

    bound: Array
    price: Array
    mix: Mix
    beyond: Mix


def join(first: Array, second: Array) -> Array:
    """Best sums by total share, (G + 1, N), of two groups of tasks (max-plus convolution)."""
    joined = np.full_like(first, -np.inf)
    for share in np.flatnonzero(np.isfinite(second).any(axis=1)):
        room = len(first) - share
        np.maximum(joined[share:], first[:room] + second[share], out=joined[share:])
    return joined


def nothing(grid: int, num_cases: int) -> Array:
    """Scores by share before any task: 0 for no share."""
    start = np.full((grid + 1, num_cases), -np.inf)
    start[0] = 0.0
    return start


def chain(scores: Sequence[Array]) -> list[Array]:
    """Best sums of the first 0, 1, …, T tasks by their total share."""
    sums = [nothing(len(scores[0]) - 1, scores[0].shape[1])]
    for score in scores:
        sums.append(join(sums[-1], score))
    return sums


def least_cost(tables: Sequence[TaskTable], at: Indices) -> Array:
    """The least Σ cost in each case, (N,); inf where floors and caps leave nothing."""
    scores = [table.best(at, 0.0, np.ones(len(at)))[0] for table in tables]
    cost: Array = -chain(scores)[-1][-1]
    return cost


def best_mix(tables: Sequence[TaskTable], at: Indices, gain: float, price: Array) -> Mix:
    """The mix that maximises `gain` · Σ gain - price · Σ cost in each case."""
    scores, plans = zip(*(table.best(at, gain, price) for table in tables), strict=True)
    sums = chain(scores)
    every = np.arange(len(at))
    left = np.full(len(at), len(sums[0]) - 1)
    share = np.zeros((len(tables), len(at)), dtype=np.intp)
    plan = np.zeros_like(share)
    gains, costs = np.zeros(len(at)), np.zeros(len(at))
    for i in reversed(range(len(tables))):
        before = left - np.arange(len(sums[0]))[:, None]
        before_best = np.where(before >= 0, sums[i][before, every], -np.inf)
        share[i] = (before_best + scores[i]).argmax(axis=0)
        plan[i] = plans[i][share[i], every]
        left = left - share[i]
        added = tables[i].figures(at, share[i], plan[i])
        gains, costs = gains + added[0], costs + added[1]
    return Mix(sums[-1][-1].copy(), gains, costs, share, plan)


def solve_dual(tables: Sequence[TaskTable], budget: float, at: Indices) -> Dual:
    """Minimise the bound λ · B + max (gain - λ · cost) in each of the cases `at`.

    The bound is a maximum of lines, one per mix. λ goes to where the lines of a mix above the
    budget and one within it meet, until no other mix is above that point.

    Source: Fisher, "The Lagrangian relaxation method for solving integer programming problems",
        1981, eq. (2); the search for λ is Dinkelbach's, "On nonlinear fractional programming",
        1967.
    """
    budget *= 1 + ROUNDING
    within = best_mix(tables, at, 0.0, np.ones(len(at)))
    most = best_mix(tables, at, 1.0, np.zeros(len(at)))
    is_open = np.isfinite(within.score) & np.isfinite(most.score)
    bound = np.where(is_open & (within.cost <= budget), most.gain, -np.inf)
    price = np.zeros(len(at))
    fits = (is_open & (most.cost <= budget)).nonzero()[0]
    within.put(fits, most.take(fits))
    todo = (is_open & (within.cost <= budget) & (most.cost > budget)).nonzero()[0]
    for _ in range(_ROUNDS):
        if not todo.size:
            break
        todo = _tighten(tables, budget, at, todo, (bound, price, within, most))
    return Dual(bound, price, within, most)


def _tighten(
    tables: Sequence[TaskTable],
    budget: float,
    at: Indices,
    todo: Indices,
    state: tuple[Array, Array, Mix, Mix],
) -> Indices:
    """One new λ in the cases `todo`; the cases that are not done."""
    bound, price, within, beyond = state
    inside, outside = within.take(todo), beyond.take(todo)
    lam = (outside.gain - inside.gain) / (outside.cost - inside.cost)
    lam = np.maximum(lam, 0.0)
    new = best_mix(tables, at[todo], 1.0, lam)
    proven = new.score + lam * budget
    tighter = proven < bound[todo]
    price[todo] = np.where(tighter, lam, price[todo])
    bound[todo] = np.minimum(proven, bound[todo])
    keeps = new.cost <= budget
    better = keeps & (new.gain > inside.gain)
    within.put(todo[better], new.take(better.nonzero()[0]))
    beyond.put(todo[~keeps], new.take((~keeps).nonzero()[0]))
    line = inside.gain - lam * inside.cost
    above = new.score > line + 1e-9 * np.maximum(1e-300, np.abs(line) + np.abs(inside.gain))
    left: Indices = todo[above & (better | ~keeps)]
    return left
