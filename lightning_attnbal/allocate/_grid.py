"""Exact dynamic programme on a grid of costs, for whole costs and a small budget.

Array legend: K kinds of arc, T tasks, U units, L levels, R = 2 L + 3 moves (see `_moves`), C = room
+ 1 costs, W = C and the padding below cost 0.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from lightning_attnbal.allocate._dual import ROUNDING, Limit
from lightning_attnbal.allocate._trellis import (
    ABOVE,
    FOUND,
    OPEN,
    PASSED,
    PIVOT,
    STORED,
    Array,
    Path,
    Trellis,
)

_MAX_ROOM = 2000


def room_on_grid(trellis: Trellis, limit: Limit) -> int | None:
    """Whole cost left after what is fixed, or None where costs lie on no small grid."""
    room = np.floor(limit.cost * (1 + ROUNDING) - trellis.fixed)
    if limit.memory is not None or room > _MAX_ROOM:
        return None
    costs = trellis.cost[np.isfinite(trellis.value)]
    return int(room) if (costs == np.rint(costs)).all() else None


class Grid:
    """The most that partial plans of at most each whole cost can be worth.

    One unit turns the values V_s(c) of the states into max over its moves r into s of V_{source of
    r}(c - cost_r) + value_r: R shifted copies and three maxima. Nothing is ever cut.

    Args:
        trellis: the tasks, all costs whole.
        room: what may be spent besides what is fixed, in [0, inf).

    Source: Kellerer, Pferschy and Pisinger, "Knapsack problems", 2004, chapter 11 (dynamic
        programming for the multiple-choice knapsack), here over a trellis with three states for the
        depth.
    """

    def __init__(self, trellis: Trellis, room: int) -> None:
        self._num_units = [len(p.menus) for p in trellis.problems]
        _, num_tasks, num_units, num_levels = trellis.cost.shape
        self._gain = _moves(trellis, trellis.value)
        self._cost = np.minimum(_moves(trellis, trellis.cost), room + 1).astype(np.intp)
        self._option = _moves(trellis, np.broadcast_to(np.arange(num_levels), trellis.cost.shape))
        self._source = np.repeat([OPEN, FOUND, STORED], [2 * num_levels, 2, 1])
        self._into = [slice(0, num_levels), slice(num_levels, -2), slice(-2, None)]
        pad = int(self._cost.max())
        layers = np.full((num_tasks, num_units + 1, 3, pad + room + 1), -np.inf)
        self._worth, self._flat = layers[..., pad:], layers.ravel()
        # where in `flat` each move reads for cost 0: a layer above its unit, its own cost before 0
        index = np.arange(num_tasks * (num_units + 1)).reshape(num_tasks, -1, 1)[:, 1:]
        self._start = (3 * index + self._source) * layers.shape[-1] + pad - self._cost
        self._ends = self._walk(np.lib.stride_tricks.sliding_window_view(self._flat, room + 1))

    def _walk(self, windows: Array) -> Array:
        """All tasks from their top units down, each from what the last one reached; (C,)."""
        reached = np.zeros(windows.shape[-1])
        for task, num_units in enumerate(self._num_units):
            self._worth[task, num_units, OPEN] = reached
            for unit in reversed(range(num_units)):
                moved = windows[self._start[task, unit]]
                moved += self._gain[task, unit][:, None]
                for into, worth in zip(self._into, self._worth[task, unit], strict=True):
                    moved[into].max(axis=0, out=worth)
            reached = self._worth[task, 0, FOUND:].max(axis=0)
        return reached

    def best(self) -> tuple[Path, float]:
        """The cheapest of the most valuable plans, and its value, -inf where none fits."""
        spent = int(self._ends.argmax())
        value = float(self._ends[spent])
        path: Path = ()
        for task in reversed(range(len(self._num_units))):
            state = FOUND + int(self._worth[task, 0, FOUND:, spent].argmax())
            chosen = []
            for unit in range(self._num_units[task]):
                into, at = self._into[state], (task, unit)
                worth = self._flat[self._start[at][into] + spent] + self._gain[at][into]
                move = range(len(self._source))[into][worth.argmax()]
                chosen.append(int(self._option[at][move]))
                spent -= int(self._cost[at][move])
                state = int(self._source[move])
            path = (tuple(chosen), *path)
        return path, value


def _moves(trellis: Trellis, table: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Entries of (K, T, U, L) for all moves into `OPEN`, `FOUND` and `STORED`, (T, U, R)."""
    passed, cached = np.take_along_axis(table[PASSED:], trellis.lone[..., None], axis=3)
    return np.concatenate([table[ABOVE], table[PIVOT], passed, cached, cached], axis=-1)
