"""For every depth of the lowest trained unit and every multiplier, the best plan of each task.

Array legend: K kinds of arc, T tasks, U units (also: depths), L levels, J multiplier pairs.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lightning_attnbal.allocate._dual import Dual, Limit, best_arcs
from lightning_attnbal.allocate._trellis import (
    ABOVE,
    CACHED_BELOW,
    PASSED,
    PIVOT,
    Array,
    Indices,
    Trellis,
)

_MAX_NODES = 200
_FINER = 14


@dataclass(frozen=True, eq=False)
class DepthTable:
    """The plan that maximises value - λ · cost - μ · memory, given the lowest trained unit.

    Args:
        dual: the J multiplier pairs.
        choice: (K, T, U, J), the best option of each arc.
        stored: (U, T, J), whether, from unit u downwards, all units are better cached than u
            frozen.
        cost: (T, U, J), of the whole task without what is fixed.
        value: (T, U, J), -inf where no such plan exists.
        memory: (T, U, J), without what is fixed.
    """

    dual: Dual
    choice: Indices
    stored: npt.NDArray[np.bool_]
    cost: Array
    value: Array
    memory: Array

    @classmethod
    def build(cls, trellis: Trellis, dual: Dual) -> DepthTable:
        """Prefix, lowest unit and suffix of every depth, shared between depths."""
        best, choice = best_arcs(trellis, dual.lam, dual.mu)
        figures = np.stack(
            [
                np.take_along_axis(a, choice, axis=3)
                for a in (trellis.cost, trellis.value, trellis.memory)
            ]
        )
        above = figures[:, ABOVE]
        suffix = np.zeros_like(above)
        suffix[:, :, :-1] = above[:, :, :0:-1].cumsum(axis=2)[:, :, ::-1]
        prefix, stored = _prefixes(figures, best)
        cost, value, memory = prefix + figures[:, PIVOT] + suffix
        return cls(dual, choice, stored, cost, value, memory)

    def path(self, trellis: Trellis, task: int, depth: int, pair: int) -> tuple[int, ...]:
        """The option chosen for each unit of a task."""
        num_units = len(trellis.problems[task].menus)
        choice = self.choice[:, task, :, pair]
        cut = next((k for k in range(depth, 0, -1) if self.stored[k - 1, task, pair]), 0)
        below = [*choice[CACHED_BELOW, :cut], *choice[PASSED, cut:depth]]
        chosen = [*below, choice[PIVOT, depth], *choice[ABOVE, depth + 1 : num_units]]
        return tuple(int(i) for i in chosen)

    def reduced(self) -> Array:
        """Value after paying for cost and memory, (T, U, J)."""
        return self.value - self.dual.lam * self.cost - self.dual.mu * self.memory


def _prefixes(figures: Array, best: Array) -> tuple[Array, npt.NDArray[np.bool_]]:
    """Figures of the units below each depth, (3, T, U, J), and where caching is chosen."""
    _, _, num_tasks, num_units, width = figures.shape
    prefix = np.zeros((3, num_units, num_tasks, width))
    stored = np.zeros((num_units, num_tasks, width), dtype=bool)
    figures = np.ascontiguousarray(figures.transpose(1, 3, 0, 2, 4))
    best = np.ascontiguousarray(best.transpose(0, 2, 1, 3))
    cached, cached_gain, gain = np.zeros_like(figures[0, 0]), np.zeros_like(best[0, 0]), 0.0
    for k in range(num_units - 1):
        cached = cached + figures[CACHED_BELOW, k]
        cached_gain = cached_gain + best[CACHED_BELOW, k]
        frozen_gain = best[PASSED, k] + gain
        stored[k] = cached_gain > frozen_gain
        prefix[:, k + 1] = np.where(stored[k], cached, prefix[:, k] + figures[PASSED, k])
        gain = np.where(stored[k], cached_gain, frozen_gain)
    return prefix.transpose(0, 2, 1, 3), stored


def depth_bound(
    table: DepthTable, trellis: Trellis, limit: Limit, floor: float
) -> tuple[float, Array]:
    """Upper bound by branching on the depths of the tasks, and λ that would sharpen it.

    A node fixes an interval of depths per task; its bound is the smallest over the multiplier pairs
    of λ · B + μ · M + Σ_i max over the depths of task i. Fixing the depth removes what is least
    convex about the problem. Stops where nothing can be better than `floor`, where no split helps,
    or after 200 nodes.
    """
    dual = table.dual
    gains = table.reduced()
    fixed = dual.bounds - dual.later[0] + _memory_price(trellis, dual, limit)
    nodes = [_Node(gains, fixed, ((0, gains.shape[1]),) * len(gains), gains.max(axis=1))]
    for _ in range(_MAX_NODES):
        children = [] if nodes[0].bound <= floor else list(nodes[0].children())
        if not children:
            break
        heapq.heapreplace(nodes, children[0])
        heapq.heappush(nodes, children[1])
    low, high = dual.lam[max(0, nodes[0].pair - 1)], dual.lam[nodes[0].pair + 1 :][:1].sum()
    return max(nodes[0].bound, floor), np.linspace(low, max(low, high), _FINER)[1:-1]


def _memory_price(trellis: Trellis, dual: Dual, limit: Limit) -> Array | float:
    """Σ_i μ · (M - fixed memory of i), (J,)."""
    if limit.memory is None:
        return 0.0
    return dual.mu * float((limit.memory - trellis.fixed_memory).sum())


class _Node:
    """Intervals of depths, their bound, and where to split them."""

    def __init__(
        self, gains: Array, fixed: Array, spans: tuple[tuple[int, int], ...], tops: Array
    ) -> None:
        self.gains, self.fixed, self.spans, self.tops = gains, fixed, spans, tops
        totals = fixed + tops.sum(axis=0)
        self.pair = int(totals.argmin())
        self.bound = float(totals[self.pair])

    def split(self) -> tuple[int, int] | None:
        """The task whose best depth changes most around the best λ, and the depth between."""
        reach = 1
        while reach < 2 * len(self.fixed):
            pairs = [max(0, self.pair - reach), min(len(self.fixed) - 1, self.pair + reach)]
            best = [
                low + gains[low:high, pairs].argmax(axis=0)
                for gains, (low, high) in zip(self.gains, self.spans, strict=True)
            ]
            moved = np.abs(np.diff(best)).ravel()
            task = int(moved.argmax())
            if moved[task]:
                return task, int(best[task].sum() + 1) // 2
            reach *= 2
        return None

    def children(self) -> Iterator[_Node]:
        """The two halves, none if no split helps."""
        split = self.split()
        if split is None:
            return
        task, cut = split
        low, high = self.spans[task]
        for span in ((low, cut), (cut, high)):
            spans = (*self.spans[:task], span, *self.spans[task + 1 :])
            tops = self.tops.copy()
            tops[task] = self.gains[task, slice(*span)].max(axis=0)
            yield _Node(self.gains, self.fixed, spans, tops)

    def __lt__(self, other: _Node) -> bool:
        return self.bound > other.bound
