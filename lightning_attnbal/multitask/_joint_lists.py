"""Exact: lists of non-dominated choices for the first tasks, cut by what the others can add."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np

from lightning_attnbal.multitask._joint_dual import ROUNDING, Mix, chain, join
from lightning_attnbal.multitask._joint_table import TaskTable
from lightning_attnbal.multitask._joint_terms import Array, Indices

_WIDTH = 1000  # longest list
_AROUND = np.array([1.0, 0.0, 0.3, 0.6, 0.8, 1.25, 1.6, 3.0])  # prices, in that of the dual


class _Partial(NamedTuple):
    """N choices for the first tasks, or of one task."""

    share: Indices
    gain: Array
    cost: Array

    def take(self, where: Indices) -> _Partial:
        return _Partial(self.share[where], self.gain[where], self.cost[where])


class _Layer(NamedTuple):
    """How the choices for the first tasks came about: the one before, and the last share, plan."""

    before: Indices
    share: Indices
    plan: Indices


class _Rest(NamedTuple):
    """What other tasks can do with each share: best scores, (G + 1, K), least cost, (G + 1,)."""

    score: Array
    cost: Array


@dataclass(frozen=True, slots=True, eq=False)
class _Bar:
    """What a choice must promise to be kept.

    Args:
        prices: (K,), the λ ≥ 0 that bound it, the best one first.
        budget: what everything may cost.
        least: the gain to beat.
    """

    prices: Array
    budget: float
    least: float

    def upper(self, choice: _Partial, rest: _Rest, num_prices: int = 1) -> Array:
        """The most that choices can become; -inf where that cannot be within the budget."""
        missing = len(rest.score) - 1 - choice.share
        at = np.maximum(missing, 0)
        fits = (missing >= 0) & (choice.cost + rest.cost[at] <= self.budget)
        room = self.budget - choice.cost
        prices = zip(self.prices[:num_prices], rest.score.T, strict=False)
        bounds = [lam * room + score[at] for lam, score in prices]
        return np.where(fits, choice.gain + np.min(bounds, axis=0), -np.inf)


def solve_lists(
    tables: Sequence[TaskTable],
    case: int,
    budget: float,
    price: float,
    floor: float,
    shares: Indices | None = None,
) -> tuple[Mix | None, float]:
    """The best mix of one case if it gains more than `floor`, and a proven bound.

    Args:
        tables: of all tasks.
        case: which one.
        budget: what the mix may cost.
        price: λ by which to bound what a partial choice can become.
        floor: gain of the best mix known.
        shares: (T,), the share of each task; None to choose them too.

    Source: Nemhauser and Ullmann, "Discrete dynamic programming and capital allocation", 1969;
        bounds and the removal of options as in Pisinger, "A minimal algorithm for the
        multiple-choice knapsack problem", 1995, here with the shares as a second, whole resource.
    """
    prices = price * _AROUND
    score = _Chains.of(tables, case, 1.0, prices, shares)
    cost = _Chains.of(tables, case, 0.0, np.ones(1), shares)
    bar = _Bar(prices, budget * (1 + ROUNDING), floor + ROUNDING * abs(floor))
    partial = _Partial(np.zeros(1, dtype=np.intp), np.zeros(1), np.zeros(1))
    layers: list[_Layer] = []
    lost = -np.inf
    for i, table in enumerate(tables):
        share, plan, *figures = table.options(case)
        option = _Partial(share, *figures)
        upper = bar.upper(option, _Rest(score.without(i), -cost.without(i)[:, 0]))
        kept = (upper > bar.least).nonzero()[0]
        rest = _Rest(score.later[i + 1], -cost.later[i + 1][:, 0])
        partial, before, which, dropped = _extend(partial, option.take(kept), bar, rest)
        layers.append(_Layer(before, share[kept][which], plan[kept][which]))
        lost = max(lost, dropped)
    if not partial.gain.size:
        return None, max(floor, lost)
    end = int(partial.gain.argmax())
    return _mix(layers, partial, end), max(float(partial.gain[end]), lost)


@dataclass(frozen=True, slots=True, eq=False)
class _Chains:
    """Best sums by total share of the first tasks, and of the last ones, (T + 1) × (G + 1, K)."""

    first: list[Array]
    later: list[Array]

    @classmethod
    def of(
        cls,
        tables: Sequence[TaskTable],
        case: int,
        gain: float,
        prices: Array,
        shares: Indices | None,
    ) -> Self:
        """Sums of `gain` · gain - price · cost in one case, with the given shares if there are."""
        at = np.full(len(prices), case)
        scores = [table.best(at, gain, prices)[0] for table in tables]
        if shares is not None:
            every = np.arange(len(scores[0]))[:, None]
            pairs = zip(scores, shares, strict=True)
            scores = [np.where(every == share, score, -np.inf) for score, share in pairs]
        return cls(chain(scores), chain(scores[::-1])[::-1])

    def without(self, task: int) -> Array:
        """Of all other tasks, (G + 1, K)."""
        return join(self.first[task], self.later[task + 1])


def _extend(
    partial: _Partial, option: _Partial, bar: _Bar, rest: _Rest
) -> tuple[_Partial, Indices, Indices, float]:
    """Every choice with every option that may still win; parents, options, best bound given up."""
    share, gain, cost = (
        np.add.outer(old, new).ravel() for old, new in zip(partial, option, strict=True)
    )
    grown = _Partial(share, gain, cost)
    kept = (bar.upper(grown, rest) > bar.least).nonzero()[0]
    kept = kept[_undominated(grown.take(kept))]
    upper = bar.upper(grown.take(kept), rest, len(bar.prices))
    order = np.argsort(-upper, kind="stable")[: np.count_nonzero(upper > bar.least)]
    dropped = float(upper[order[_WIDTH:]].max(initial=-np.inf))
    kept = kept[order[:_WIDTH]]
    before, which = np.divmod(kept, max(1, len(option.gain)))
    return grown.take(kept), before, which, dropped


def _undominated(choice: _Partial) -> Indices:
    """Positions of the choices that no other of the same share beats; one of equal ones."""
    order = np.lexsort((-choice.gain, choice.cost, choice.share))
    levels, rank = np.unique(choice.gain[order], return_inverse=True)
    key = choice.share[order] * len(levels) + rank
    rises = np.ones(len(order), dtype=bool)
    rises[1:] = key[1:] > np.maximum.accumulate(key)[:-1]
    kept: Indices = order[rises]
    return kept


def _mix(layers: Sequence[_Layer], partial: _Partial, end: int) -> Mix:
    """The choice at position `end` of the last list."""
    share, plan = [], []
    node = end
    for layer in reversed(layers):
        share.append(layer.share[node])
        plan.append(layer.plan[node])
        node = int(layer.before[node])
    gain, cost = partial.gain[[end]], partial.cost[[end]]
    return Mix(gain, gain, cost, np.array([share[::-1]]).T, np.array([plan[::-1]]).T)
