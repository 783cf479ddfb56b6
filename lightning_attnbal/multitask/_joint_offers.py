"""The plans of one task that are worth having for each cached prefix: exact, for small tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from lightning_attnbal.allocate import Frontier, InfeasibleMemoryError, frontier, full_levels
from lightning_attnbal.core import Option, Problem
from lightning_attnbal.multitask._joint_prefix import at_rest, restrict
from lightning_attnbal.multitask._joint_terms import Array, Levels

_LISTED = 1000  # cells of cost on an exact frontier, before it is thinned


@dataclass(frozen=True, slots=True, eq=False)
class Offers:
    """J plans of one task over one cached prefix, by rising cost.

    Args:
        cost: (J,), per step.
        value: (J,), per step.
        once: one-off cost of the prefix, the same for all plans, in [0, inf).
        levels: the levels of a plan, by its position.
    """

    cost: Array
    value: Array
    once: float
    levels: Callable[[int], Levels]


def once_of(prefix: Iterable[Option]) -> float:
    """One-off cost of a cached prefix, at least 0."""
    return max(0.0, sum(option.once for option in prefix))


def listed(problem: Problem, depth: int, memory: float | None, most: int) -> Offers | None:
    """At most `most` plans of the exact frontier and full training, None if there is no plan."""
    restricted = restrict(problem, depth)
    if restricted is None:
        return None
    try:
        points = frontier(restricted, memory=memory, resolution=_LISTED)
    except InfeasibleMemoryError:
        return None
    plans = [points[i].levels[0] for i in _chosen(points, most)]
    full = full_of(restricted, memory)
    return _offers(problem, plans if full is None else [*plans, full], depth)


def _chosen(points: Frontier, most: int) -> list[int]:
    """Positions of at most `most` points: half of them corners of the concave envelope."""
    if len(points) <= most:
        return list(range(len(points)))
    prices = [point.shadow_price for point in points]
    corners = [i for i, price in enumerate(prices) if not i or price != prices[i - 1]]
    some = {corners[i] for i in thinned(len(corners), (most + 1) // 2)}
    return sorted(some.union(thinned(len(points), most - len(some))))


def full_of(restricted: Problem, memory: float | None) -> Levels | None:
    """Training all that the menus allow, None if that takes too much memory."""
    full = full_levels(restricted)
    return full if memory is None or restricted.evaluate(full)[2] <= memory else None


def thinned(count: int, most: int) -> list[int]:
    """At most `most` of so many positions, evenly, with both ends.

    Example:
        >>> thinned(3, 8), thinned(9, 3)
        ([0, 1, 2], [0, 4, 8])
    """
    if count <= most:
        return list(range(count))
    return [int(i) for i in np.unique(np.linspace(0, count - 1, most).round())]


def _offers(problem: Problem, plans: Sequence[Levels], depth: int) -> Offers:
    figures = {levels: problem.evaluate(levels) for levels in plans}
    order = sorted(figures, key=lambda levels: figures[levels][:2])
    cost, value, _ = np.array([figures[levels] for levels in order]).T
    once = once_of(filter(None, map(at_rest, problem.menus[:depth])))
    return Offers(cost, value, once, order.__getitem__)
