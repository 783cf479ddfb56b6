"""Lists of partial plans: which may still become the best one."""

from __future__ import annotations

from bisect import bisect_left, bisect_right

import numpy as np

from lightning_attnbal.allocate._trellis import Array, Indices


def non_dominated(cost: Array, value: Array, memory: Array | None = None) -> Indices:
    """Positions of the entries that no other beats, sorted by cost; one of equal ones.

    Shapes: all (N,). Without `memory`, values rise strictly along the answer.

    Source: Nemhauser and Ullmann, "Discrete dynamic programming and capital allocation", 1969
    (dominance of lists).

    Example:
        >>> non_dominated(np.array([2.0, 1.0, 3.0, 1.0]), np.array([5.0, 1.0, 4.0, 2.0]))
        array([3, 0])
    """
    if memory is not None and memory.size and np.ptp(memory) > 0:
        return _staircase(cost, value, memory)
    order = np.argsort(cost, kind="stable")
    values = value[order]
    rises = np.ones(len(order), dtype=bool)
    rises[1:] = values[1:] > np.maximum.accumulate(values)[:-1]
    order = order[rises]
    costs = cost[order]
    last = np.ones(len(order), dtype=bool)
    last[:-1] = costs[1:] > costs[:-1]
    return order[last]


def _staircase(cost: Array, value: Array, memory: Array) -> Indices:
    """By rising cost, a staircase of (memory, value) of all cheaper entries, both rising."""
    order = np.lexsort((memory, -value, cost))
    steps: list[float] = []
    tops: list[float] = []
    kept = []
    rows = zip(order.tolist(), value[order].tolist(), memory[order].tolist(), strict=True)
    for position, worth, size in rows:
        at = bisect_right(steps, size)
        if at and tops[at - 1] >= worth:
            continue
        start, end = bisect_left(steps, size), bisect_right(tops, worth)
        steps[start : max(start, end)] = [size]
        tops[start : max(start, end)] = [worth]
        kept.append(position)
    return np.array(kept, dtype=np.intp)


def most_promising(upper: Array, width: int) -> tuple[Indices, float]:
    """Positions of the `width` largest bounds, and the largest of the rest (-inf if none).

    Example:
        >>> most_promising(np.array([5.0, 1.0, 4.0]), 2)
        (array([0, 2]), 1.0)
    """
    if len(upper) <= width:
        return np.arange(len(upper)), -np.inf
    order = np.argpartition(-upper, width)
    return np.sort(order[:width]), float(upper[order[width:]].max())


def one_per_cell(cost: Array, value: Array, width: int) -> Indices:
    """The most valuable entry in each of `width` equal cells of (sorted) cost, and the first."""
    if len(cost) <= width + 1:
        return np.arange(len(cost))
    cell = ((cost - cost[0]) * (width / (cost[-1] - cost[0]))).astype(np.intp)
    order = np.lexsort((value, cell))
    last = np.append(np.diff(cell[order]) > 0, True)
    return np.union1d(order[last], [0])
