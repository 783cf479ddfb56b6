"""The problem as a trellis: a plan is a path through three states, walked from the top unit down.

Array legend: K kinds of arc, T tasks, U units, L levels, J multiplier pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from lightning_attnbal.core import Level, LevelKind, Problem

Array: TypeAlias = npt.NDArray[np.float64]
Indices: TypeAlias = npt.NDArray[np.intp]
Path: TypeAlias = tuple[tuple[int, ...], ...]
"""Per task, per unit in forward order: the index of the chosen option on its menu."""

ABOVE, PIVOT, PASSED, CACHED_BELOW = range(4)
"""Arcs: above the lowest trained unit, that unit itself, frozen below it, cached below it."""

OPEN, FOUND, STORED = range(3)
"""States: lowest trained unit still to come, found, and only cached units left."""


@dataclass(frozen=True, eq=False)
class Trellis:
    """Everything that the solvers need to know about the tasks, as padded arrays.

    Walking one task from its top unit down, `ABOVE` keeps the state `OPEN`, `PIVOT` leads from
    `OPEN` to `FOUND`, `PASSED` keeps `FOUND`, and `CACHED_BELOW` leads to `STORED` and stays there.
    The paths that do not end in `OPEN` are exactly the valid plans of `Problem`. Padding units
    (above the top of a shorter task) are free.

    Args:
        problems: one per task.
        cost: (K, T, U, L), share of the task and `cost_above` included.
        value: (K, T, U, L), -inf where there is no such arc.
        memory: (K, T, U, L), bytes, `memory_above` included.
        fixed: Σ share · fixed, the cost of a step whatever the plan.
        fixed_memory: (T,), bytes.
    """

    problems: tuple[Problem, ...]
    cost: Array
    value: Array
    memory: Array
    fixed: float
    fixed_memory: Array

    @classmethod
    def build(cls, problems: Sequence[Problem]) -> Trellis:
        """Read the menus of all tasks into arrays."""
        table, arcs = _read(problems)
        cost, cost_above, value, memory, memory_above = np.moveaxis(table, -1, 0)
        share = np.array([p.share for p in problems])[:, None, None]
        return cls(
            tuple(problems),
            share * np.stack([cost + cost_above, cost, cost, cost]),
            np.where(arcs, share * value, -np.inf),
            np.stack([memory + memory_above, memory, memory, memory]),
            float(sum(p.share * p.fixed for p in problems)),
            np.array([p.fixed_memory for p in problems]),
        )

    @cached_property
    def lone(self) -> Indices:
        """The only option of `PASSED` and `CACHED_BELOW`, (2, T, U); 0 where there is none."""
        lone: Indices = np.isfinite(self.value[PASSED:]).argmax(axis=3)
        return lone

    @property
    def num_options(self) -> int:
        """Size of the problem: tasks × units × levels."""
        return int(self.value[0].size)

    def levels(self, path: Path) -> tuple[tuple[Level, ...], ...]:
        """The levels that a path chooses, per task."""
        return tuple(
            tuple(menu.options[i].level for menu, i in zip(problem.menus, task, strict=True))
            for problem, task in zip(self.problems, path, strict=True)
        )

    def evaluate(self, path: Path) -> tuple[float, float, float]:
        """True (cost, value, largest memory) by `Problem.evaluate`."""
        figures = [
            p.evaluate(levels) for p, levels in zip(self.problems, self.levels(path), strict=True)
        ]
        return sum(f[0] for f in figures), sum(f[1] for f in figures), max(f[2] for f in figures)


def _read(problems: Sequence[Problem]) -> tuple[Array, npt.NDArray[np.bool_]]:
    """Figures of every option, (T, U, L, 5), and which arcs it has, (K, T, U, L)."""
    menus = [(i, k, menu) for i, p in enumerate(problems) for k, menu in enumerate(p.menus)]
    num_units = max(len(p.menus) for p in problems)
    num_levels = max(len(menu.options) for _, _, menu in menus)
    table = np.zeros((len(problems), num_units, num_levels, 5))
    arcs = np.zeros((4, len(problems), num_units, num_levels), dtype=bool)
    where = [(i, k, j) for i, k, menu in menus for j in range(len(menu.options))]
    options = [o for _, _, menu in menus for o in menu.options]
    index = tuple(np.array(where).T)
    table[index] = [(o.cost, o.cost_above, o.value, o.memory, o.memory_above) for o in options]
    arcs[(slice(None), *index)] = np.array([_ARCS[o.level.kind] for o in options]).T
    for i, problem in enumerate(problems):
        arcs[ABOVE, i, len(problem.menus) :, 0] = True
    return table, arcs


_TRAINED = (True, True, False, False)
_ARCS = {
    LevelKind.CACHED: (False, False, False, True),
    LevelKind.FROZEN: (True, False, True, False),
    LevelKind.DETACHED: (True, False, False, False),
    LevelKind.LOCAL: _TRAINED,
    LevelKind.LORA: _TRAINED,
    LevelKind.FULL: _TRAINED,
}


def scan(best: Array) -> Array:
    """The most that the units below can add, (3, T, U + 1, J), from best arcs (4, T, U, J).

    Entry [s, i, k] completes task i from state s with its units 0 … k - 1 still to be set.
    """
    _, num_tasks, num_units, width = best.shape
    rest = np.zeros((3, num_units + 1, num_tasks, width))
    rest[OPEN, 0] = -np.inf
    arcs = np.ascontiguousarray(best.transpose(0, 2, 1, 3))
    opened, found, stored = rest[OPEN], rest[FOUND], rest[STORED]
    arcs[CACHED_BELOW].cumsum(axis=0, out=stored[1:])
    for k in range(num_units):
        np.add(arcs[PASSED, k], found[k], out=found[k + 1])
        np.maximum(found[k + 1], stored[k + 1], out=found[k + 1])
    pivot = arcs[PIVOT] + found[:-1]
    for k in range(num_units):
        np.add(arcs[ABOVE, k], opened[k], out=opened[k + 1])
        np.maximum(opened[k + 1], pivot[k], out=opened[k + 1])
    return rest.transpose(0, 2, 1, 3)


def least(trellis: Trellis, amount: Array) -> Array:
    """The least `amount` (cost or memory) that completes each state, as `scan` with J = 1."""
    gain = np.where(np.isfinite(trellis.value), -amount, -np.inf)
    return -scan(gain.max(axis=3, keepdims=True))
