"""All plans worth having, from the cheapest to the most valuable one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lightning_attnbal.allocate._dual import Dual, Limit
from lightning_attnbal.allocate._feasible import prepare
from lightning_attnbal.allocate._solution import Frontier, as_solution
from lightning_attnbal.allocate._sweep import Sweep
from lightning_attnbal.allocate._trellis import Array, Trellis
from lightning_attnbal.core import Problem, check_integer

_PRICES = 64


def frontier(
    problem: Problem | Sequence[Problem], *, memory: float | None = None, resolution: int = 1000
) -> Frontier:
    """All plans that no other beats, from the cheapest to the most valuable one.

    Lists longer than `resolution` + 1 keep the most valuable plan in each of `resolution` equal
    cells of cost; the cheapest and the most valuable plan always stay. `gap` is 0 where nothing was
    cut.

    Args:
        problem: one task, or several that share the budget.
        memory: peak bytes, in [0, inf), or None for no limit.
        resolution: cells of cost, in [1, inf).

    Raises:
        ValueError: a number out of range, two tasks of one name, or menus that allow no valid plan.
        InfeasibleMemoryError: even the smallest plan needs more memory; names its peak.

    Example:
        >>> from lightning_attnbal.core import FROZEN, FULL, Menu, Option, Problem
        >>> menu = (Option(level=FROZEN, cost=1, cost_above=1),
        ...         Option(level=FULL, cost=2, cost_above=1, value=3))
        >>> problem = Problem((Menu("low", menu), Menu("high", menu)))
        >>> [(point.cost, point.value) for point in frontier(problem)]
        [(3.0, 3.0), (5.0, 6.0)]
    """
    trellis, limit = prepare(problem, None, memory)
    sweep = Sweep(trellis, limit, check_integer("resolution", resolution, low=1))
    ends = sweep.run()
    cost, value, _ = ends.figures
    slopes = _envelope_slopes(cost, value)
    bounds = _frontier_bounds(trellis, cost, slopes) if sweep.is_cut else value
    return Frontier(
        tuple(
            as_solution(
                trellis,
                path,
                trellis.evaluate(path),
                bound=float(bound),
                shadow_price=float(slope),
                method="exact",
            )
            for path, bound, slope in zip(sweep.paths(ends.node), bounds, slopes, strict=True)
        )
    )


def _envelope_slopes(cost: Array, value: Array) -> Array:
    """Slope of the concave envelope to the right of each point, 0 at the last."""
    corners: list[int] = []
    for i in range(len(cost)):
        while len(corners) > 1 and _turns_up(cost, value, corners[-2], corners[-1], i):
            corners.pop()
        corners.append(i)
    slopes = np.append(np.diff(value[corners]) / np.diff(cost[corners]), 0.0)
    return slopes[np.searchsorted(corners, np.arange(len(cost)), side="right") - 1]


def _turns_up(cost: Array, value: Array, a: int, b: int, c: int) -> bool:
    """Whether the corner b lies on or below the line from a to c."""
    left = (value[b] - value[a]) * (cost[c] - cost[a])
    right = (value[c] - value[a]) * (cost[b] - cost[a])
    return bool(left <= right)


def _frontier_bounds(trellis: Trellis, cost: Array, slopes: Array) -> Array:
    """Upper bound of the value at each cost, from the multipliers along the envelope."""
    prices = np.unique(np.quantile(slopes, np.linspace(0, 1, _PRICES)))
    dual = Dual.evaluate(trellis, Limit(0.0), prices, np.zeros_like(prices))
    room = cost[:, None] - trellis.fixed
    bounds: Array = (dual.lam * room + dual.later[0]).min(axis=1)
    return bounds
