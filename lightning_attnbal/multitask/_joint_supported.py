"""The plans of one task on the concave envelope, for each cached prefix: fast, for large tasks.

Array legend: F = 4 figures (cost, value, memory, how much trains), U units, L levels, Q prices, D
lengths of the prefix.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Self

import numpy as np
from numpy.typing import NDArray

from lightning_attnbal.core import CACHED, FROZEN, LevelKind, Option, Problem
from lightning_attnbal.multitask._joint_offers import Offers, once_of, thinned
from lightning_attnbal.multitask._joint_prefix import at_rest, cached_prefix
from lightning_attnbal.multitask._joint_terms import Array, Indices, Levels

_WIDE = np.geomspace(1e-5, 1e5, 41)
_NUM_PRICES = 48
_MEMORY_PRICES = np.append(0.0, np.geomspace(1e-2, 1e2, 9))
_KINDS = list(LevelKind)


def supported(
    problem: Problem, num_depths: int, memory: float | None, most: int
) -> list[Offers | None]:
    """For each prefix at most `most` plans that are the best at some price; None for no plan."""
    menus = _Menus.read(problem)
    walk = _Walk.along(menus, menus.prices(memory is not None))
    rests = [at_rest(menu) for menu in problem.menus]
    prefixes = [cached_prefix(rests[:depth]) for depth in range(num_depths)]
    return [walk.offers(problem, prefix, memory, most) for prefix in prefixes]


@dataclass(frozen=True, slots=True, eq=False)
class _Menus:
    """One task's menus as arrays.

    Args:
        alone: (F, U, L), with nothing trained below.
        above: (F, U, L), with something trained below.
        can: (3, U, L), whether an option may lie above the lowest trained unit, be it, or lie
            frozen below it.
    """

    alone: Array
    above: Array
    can: NDArray[np.bool_]

    @classmethod
    def read(cls, problem: Problem) -> Self:
        """Padded with options that may not be anything."""
        num_levels = max(len(menu.options) for menu in problem.menus)
        shape = len(problem.menus), num_levels
        alone, above = np.zeros((4, *shape)), np.zeros((4, *shape))
        can = np.zeros((3, *shape), dtype=bool)
        for k, menu in enumerate(problem.menus):
            for j, o in enumerate(menu.options):
                trained = _trained(o)
                alone[:, k, j] = o.cost, o.value, o.memory, trained
                above[:, k, j] = o.cost + o.cost_above, o.value, o.memory + o.memory_above, trained
                can[:, k, j] = o.level != CACHED, o.level.is_trained, o.level == FROZEN
        return cls(alone, above, can)

    def prices(self, with_memory: bool) -> Array:
        """What to maximise, (Q, F): value at many prices of cost (and memory), and the ends."""
        scale = _size(self.above[1]) / _size(self.above[0])
        wide = _Walk.along(self, _columns(value=1.0, cost=-scale * _WIDE))
        moves = np.diff(wide.figures[0, :, 0]).nonzero()[0]
        low, high = (moves[0], moves[-1] + 1) if moves.size else (0, 0)
        lam = scale * np.geomspace(_WIDE[low], _WIDE[high], _NUM_PRICES)
        ends = np.eye(4) * [-1.0, 1.0, -1.0, 1.0]
        if not with_memory:
            return np.vstack([_columns(value=1.0, cost=-lam), ends])
        mu = _MEMORY_PRICES * _size(self.above[1]) / _size(self.above[2])
        pairs = _columns(
            value=1.0, cost=-np.repeat(lam[::4], len(mu)), memory=-np.tile(mu, len(lam[::4]))
        )
        cheap = _columns(cost=-1.0, memory=-_MEMORY_PRICES * _size(self.above[0]))
        return np.vstack([_columns(value=1.0, cost=-lam), pairs, cheap, ends])


def _trained(option: Option) -> float:
    """How much an option trains: its kind before its rank, 0 for nothing."""
    level = option.level
    return level.is_trained * (_KINDS.index(level.kind) + level.rank / (level.rank + 1.0))


def _size(amount: Array) -> float:
    """Mean magnitude, 1 where there is none."""
    return float(np.abs(amount).mean()) or 1.0


def _columns(cost: Array | float = 0.0, value: float = 0.0, memory: Array | float = 0.0) -> Array:
    columns = np.broadcast_arrays(cost, value, memory, 0.0)
    return np.column_stack([np.atleast_1d(column) for column in columns])


@dataclass(frozen=True, slots=True, eq=False)
class _Walk:
    """For each price and length of the prefix the plan that maximises price · figures.

    Args:
        figures: (F, Q, D), of the units from the prefix on.
        pivot: (Q, D), the lowest trained unit; -1 where there is no plan.
        above: (Q, U), the option of each unit above it.
        at: (Q, U), the option of each unit if it is the lowest trained one.
        frozen: (U,), the option that freezes a unit.
    """

    figures: Array
    pivot: Indices
    above: Indices
    at: Indices
    frozen: Indices

    @classmethod
    def along(cls, menus: _Menus, prices: Array) -> Self:
        """All units at once: the tail above each, itself, and what is frozen below it."""
        num_units = menus.can.shape[1]
        above, tail = _best(menus.above, menus.can[0], prices)
        at, own = _best(menus.alone, menus.can[1], prices)
        frozen = menus.can[2].argmax(axis=1)
        still = menus.alone[:, np.arange(num_units), frozen]
        below = np.cumsum(still, axis=1) - still
        tails = tail[..., ::-1].cumsum(axis=2)[..., ::-1] - tail
        whole = own + tails + below[:, None]
        score = np.einsum("qf,fqt->qt", prices, whole)
        blocked = np.cumsum(~menus.can[2].any(axis=1)) - ~menus.can[2].any(axis=1)
        closed = np.cumsum(~menus.can[0].any(axis=1)[::-1])[::-1] - ~menus.can[0].any(axis=1)
        depth = np.arange(num_units)
        fits = (depth >= depth[:, None]) & (blocked == blocked[:, None])
        fits &= menus.can[1].any(axis=1) & (closed == 0)
        pivot = np.where(fits, score[:, None], -np.inf).argmax(axis=2)
        figures = np.take_along_axis(whole, pivot[None], axis=2) - below[:, None]
        return cls(figures, np.where(fits.any(axis=1), pivot, -1), above, at, frozen)

    def offers(
        self, problem: Problem, prefix: Sequence[Option] | None, memory: float | None, most: int
    ) -> Offers | None:
        """The plans over one prefix that fit the memory, by rising cost."""
        if prefix is None or self.pivot[0, len(prefix)] < 0:
            return None
        cost, value, peak, _ = self.figures[:, :, len(prefix)]
        cost = cost + problem.fixed + sum(o.cost for o in prefix)
        peak = peak + problem.fixed_memory + sum(o.memory for o in prefix)
        index = (peak <= (np.inf if memory is None else memory)).nonzero()[0]
        index = _worth_having(index, cost, value, most)
        levels = partial(self._levels, problem, prefix, index)
        return Offers(cost[index], value[index], once_of(prefix), levels) if index.size else None

    def _levels(
        self, problem: Problem, prefix: Sequence[Option], index: Indices, plan: int
    ) -> Levels:
        """The levels of the plan at a position among the offers."""
        price, depth = index[plan], len(prefix)
        pivot = int(self.pivot[price, depth])
        options = self.above[price].copy()
        options[depth:pivot] = self.frozen[depth:pivot]
        options[pivot] = self.at[price, pivot]
        rest = zip(problem.menus[depth:], options[depth:], strict=True)
        return (*(o.level for o in prefix), *(menu.options[i].level for menu, i in rest))


def _best(figures: Array, can: NDArray[np.bool_], prices: Array) -> tuple[Indices, Array]:
    """Per unit the best option, (Q, U), and its figures, (F, Q, U)."""
    score = np.where(can, np.einsum("qf,ful->qul", prices, figures), -np.inf)
    choice = score.argmax(axis=2)
    taken = np.take_along_axis(figures[:, None], choice[None, ..., None], axis=3)[..., 0]
    return choice, taken


def _worth_having(index: Indices, cost: Array, value: Array, most: int) -> Indices:
    """Those that no other beats, thinned to `most`, and full training, which is the last price."""
    order = index[np.lexsort((-value[index], cost[index]))]
    rises = np.ones(len(order), dtype=bool)
    rises[1:] = value[order][1:] > np.maximum.accumulate(value[order])[:-1]
    kept = order[rises]
    kept = np.union1d(kept[thinned(len(kept), most)], index[index == len(cost) - 1])
    return kept[np.argsort(cost[kept], kind="stable")]
