"""Exact dynamic programme: lists of non-dominated partial plans through the trellis."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from lightning_attnbal.allocate._dual import ROUNDING, Dual, Limit
from lightning_attnbal.allocate._lists import most_promising, non_dominated, one_per_cell
from lightning_attnbal.allocate._trellis import (
    ABOVE,
    CACHED_BELOW,
    FOUND,
    OPEN,
    PASSED,
    PIVOT,
    STORED,
    Array,
    Indices,
    Path,
    Trellis,
    least,
)

_NUM_PAIRS = 12


class Partial(NamedTuple):
    """N partial plans: cost, value, memory of the task, (3, N), and their nodes, (N,)."""

    figures: Array
    node: Indices


_NONE = Partial(np.empty((3, 0)), np.empty(0, dtype=np.intp))


class Sweep:
    """One walk over all tasks and units.

    All depths of the lowest trained unit share the lists above them, and every list keeps only what
    no other entry beats in cost, value and memory. Costs are not rounded. With a dual, entries that
    cannot beat `floor` are dropped; a list longer than `width` keeps the entries with the largest
    upper bound, and `lost` remembers the best bound among those given up (`is_cut` says whether
    there are any), so max(best value found, lost) is a proven bound. Without a dual (for the
    frontier), a long list keeps the most valuable entry in each of `width` cells of cost.

    Args:
        trellis: the tasks.
        limit: what a plan may use.
        width: longest list, in [1, inf).
        dual: multipliers to bound what partial plans can become.
        floor: value of the best plan known.

    Source: the lists are those of Nemhauser and Ullmann, 1969; bounds and state reduction as in
        Pisinger, "A minimal algorithm for the multiple-choice knapsack problem", 1995, here over a
        trellis with three states for the depth.
    """

    def __init__(
        self,
        trellis: Trellis,
        limit: Limit,
        width: int,
        dual: Dual | None = None,
        floor: float = -np.inf,
    ) -> None:
        self.trellis, self.limit, self._width, self._dual = trellis, limit, width, dual
        self.lost, self.is_cut = -np.inf, False
        self._floor = floor + ROUNDING * abs(floor) if np.isfinite(floor) else floor
        self._most_cost = min(limit.cost * (1 + ROUNDING), np.finfo(float).max)
        self._parents: list[Indices] = []
        self._options: list[Indices] = []
        self._num_nodes = 0
        arcs = np.isfinite(trellis.value)
        self._options_of = arcs.nonzero()[3]
        self._added = np.stack([trellis.cost[arcs], trellis.value[arcs], trellis.memory[arcs]])
        counts = arcs.sum(axis=3)
        ends = counts.cumsum().reshape(counts.shape)
        self._slices = ends - counts, ends
        self._least_cost = least(trellis, trellis.cost)[..., 0]
        self._later_cost = np.append(self._least_cost[OPEN, ::-1, -1].cumsum()[::-1], 0.0)
        self._least_memory = (
            None if limit.memory is None else least(trellis, trellis.memory)[..., 0]
        )
        if dual is not None:
            pairs = np.sort(dual.bounds.argsort(kind="stable")[:_NUM_PAIRS])
            self._prices = dual.lam[pairs, None], dual.mu[pairs, None]
            rest = dual.rest[..., pairs] + dual.later[1:, None, pairs]
            self._rest = rest + dual.lam[pairs] * limit.cost
            if limit.memory is not None:
                self._rest += dual.mu[pairs] * limit.memory

    def run(self) -> Partial:
        """The complete plans that are left, by rising cost (and value, without a memory limit)."""
        root = Partial(np.array([[self.trellis.fixed], [0.0], [0.0]]), np.array([-1]))
        for task in range(len(self.trellis.problems)):
            root = self._task(task, root)
        return root

    def paths(self, nodes: Indices) -> list[Path]:
        """For each node, the option of every unit of every task on the way to it."""
        parents, options = np.concatenate(self._parents), np.concatenate(self._options)
        cuts = np.cumsum([len(p.menus) for p in self.trellis.problems])
        chosen = np.empty((len(nodes), cuts[-1]), dtype=np.intp)
        for end, problem in zip(cuts[::-1], self.trellis.problems[::-1], strict=True):
            for column in range(end - len(problem.menus), end):
                chosen[:, column] = options[nodes]
                nodes = parents[nodes]
        return [tuple(tuple(part.tolist()) for part in np.split(row, cuts[:-1])) for row in chosen]

    def _task(self, task: int, start: Partial) -> Partial:
        opened = Partial(start.figures.copy(), start.node)
        opened.figures[2] = self.trellis.fixed_memory[task]
        found = stored = _NONE
        for unit in reversed(range(len(self.trellis.problems[task].menus))):
            at = (task, unit)
            stored = self._extend(STORED, at, (stored, CACHED_BELOW), (found, CACHED_BELOW))
            found = self._extend(FOUND, at, (found, PASSED), (opened, PIVOT))
            opened = self._extend(OPEN, at, (opened, ABOVE))
        figures = np.hstack([found.figures, stored.figures])
        figures[2] = 0.0
        kept = non_dominated(figures[0], figures[1])
        return Partial(figures[:, kept], np.concatenate([found.node, stored.node])[kept])

    def _extend(self, state: int, at: tuple[int, int], *sources: tuple[Partial, int]) -> Partial:
        """All continuations of the sources by one unit that can still matter, as new nodes."""
        blocks = [self._continue(partial, arc, at) for partial, arc in sources if partial.node.size]
        if not blocks:
            return _NONE
        figures, parent, option = blocks[0]
        if len(blocks) > 1:
            figures, parent, option = (
                np.concatenate(b, axis=-1) for b in zip(*blocks, strict=True)
            )
        kept = self._keep(state, at, Partial(figures, parent))
        self._parents.append(parent[kept])
        self._options.append(option[kept])
        self._num_nodes += len(kept)
        nodes = np.arange(self._num_nodes - len(kept), self._num_nodes)
        return Partial(figures[:, kept], nodes)

    def _continue(
        self, partial: Partial, arc: int, at: tuple[int, int]
    ) -> tuple[Array, Indices, Indices]:
        """Every partial plan with every option of one arc."""
        first, end = (bound[(arc, *at)] for bound in self._slices)
        options, added = self._options_of[first:end], self._added[:, first:end]
        figures = (added[:, :, None] + partial.figures[:, None]).reshape(3, -1)
        if len(options) == 1:
            return figures, partial.node, options.repeat(len(partial.node))
        parents = np.concatenate([partial.node[:0], *[partial.node] * len(options)])
        return figures, parents, options.repeat(len(partial.node))

    def _keep(self, state: int, at: tuple[int, int], new: Partial) -> Indices:
        """Positions to keep: within the limits, able to beat the best plan, not dominated."""
        fits, upper = self._fits(state, at, new), None
        if self._dual is not None:
            upper = self._upper(state, at, new)
            fits &= upper > self._floor
        kept = fits.nonzero()[0]
        cost, value, memory = new.figures[:, kept]
        order = non_dominated(cost, value, memory if self.limit.memory is not None else None)
        kept = kept[order]
        if upper is None:
            chosen = one_per_cell(cost[order], value[order], self._width)
        else:
            chosen, lost = most_promising(upper[kept], self._width + 1)
            self.lost = max(self.lost, lost)
        self.is_cut |= len(chosen) < len(kept)
        return kept[chosen]

    def _fits(self, state: int, at: tuple[int, int], new: Partial) -> npt.NDArray[np.bool_]:
        task, unit = at
        later = self._least_cost[state, task, unit] + self._later_cost[task + 1]
        fits: npt.NDArray[np.bool_] = new.figures[0] <= self._most_cost - later
        if self._least_memory is not None:
            peak = self._least_memory[state, task, unit] + new.figures[2]
            fits &= peak <= self.limit.bytes * (1 + ROUNDING)
        return fits

    def _upper(self, state: int, at: tuple[int, int], new: Partial) -> Array:
        """The most that each partial plan can become worth, by weak duality."""
        lam, mu = self._prices
        bounds = self._rest[(state, *at)][:, None] - lam * new.figures[0]
        if self.limit.memory is not None:
            bounds -= mu * new.figures[2]
        upper: Array = bounds.min(axis=0) + new.figures[1]
        return upper
