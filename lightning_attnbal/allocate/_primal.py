"""From multipliers to plans: the best mix of the tabled plans, then greedy repair.

Array legend: T tasks, U units, L levels, J multiplier pairs.
"""

from __future__ import annotations

import numpy as np

from lightning_attnbal.allocate._depths import DepthTable
from lightning_attnbal.allocate._dual import Limit
from lightning_attnbal.allocate._lists import most_promising, non_dominated
from lightning_attnbal.allocate._trellis import ABOVE, PIVOT, Array, Indices, Path, Trellis

_WIDTH = 64
_OFFERS = 800


def best_mix(table: DepthTable, trellis: Trellis, limit: Limit) -> Path | None:
    """The most valuable mix of one tabled plan per task, or None if none fits.

    Lists of non-dominated mixes, task by task, cut to the most promising ones by their dual bound.
    """
    offers = [_offers(table, trellis, limit, task) for task in range(len(trellis.problems))]
    cheapest = np.array([o[1].min(initial=np.inf) for o in offers])
    later = np.append(cheapest[::-1].cumsum()[::-1], 0.0)
    cost, value = np.array([trellis.fixed]), np.zeros(1)
    picks = np.empty((1, 0), dtype=np.intp)
    for task, (index, costs, values) in enumerate(offers):
        total = (cost[:, None] + costs).ravel()
        worth = (value[:, None] + values).ravel()
        kept = (total + later[task + 1] <= limit.cost).nonzero()[0]
        kept = kept[non_dominated(total[kept], worth[kept])]
        room = limit.cost - total[kept, None]
        upper = worth[kept] + (table.dual.lam * room + table.dual.later[task + 1]).min(axis=1)
        kept = kept[most_promising(upper, _WIDTH)[0]]
        row, column = np.divmod(kept, max(1, len(costs)))
        picks = np.column_stack([picks[row], index[column]])
        cost, value = total[kept], worth[kept]
    if not cost.size:
        return None
    num_pairs = len(table.dual.lam)
    return tuple(
        table.path(trellis, task, *divmod(int(i), num_pairs)) for task, i in enumerate(picks[-1])
    )


def _offers(
    table: DepthTable, trellis: Trellis, limit: Limit, task: int
) -> tuple[Indices, Array, Array]:
    """Flat (depth, pair) positions, costs and values of the plans worth trying."""
    cost, value = table.cost[task].ravel(), table.value[task].ravel()
    fits = np.isfinite(value)
    if limit.memory is not None:
        fits &= table.memory[task].ravel() + trellis.fixed_memory[task] <= limit.memory
    index = fits.nonzero()[0]
    index = index[non_dominated(cost[index], value[index])]
    if not len(index):
        return index, cost[index], value[index]
    lam = table.dual.lam[table.dual.best]
    width = _OFFERS // len(trellis.problems)
    chosen, _ = most_promising(value[index] - lam * cost[index], width)
    index = index[np.union1d(chosen, [0])]
    return index, cost[index], value[index]


def polish(trellis: Trellis, limit: Limit, path: Path) -> Path:
    """Greedy repair: while something more valuable fits, take the most efficient change.

    The lowest trained unit of each task stays where it is, or none below it is touched.
    """
    cost, value, memory, rows = _alternatives(trellis, path)
    chosen = np.concatenate([np.array(p) for p in path])
    every = np.arange(len(chosen))
    spent = trellis.fixed + cost[every, chosen].sum()
    peaks = trellis.fixed_memory + np.bincount(rows, memory[every, chosen])
    while True:
        gain = value - value[every, chosen][:, None]
        price = cost - cost[every, chosen][:, None]
        peak = memory - memory[every, chosen][:, None] + peaks[rows][:, None]
        fits = (gain > 0) & (spent + price <= limit.cost) & (peak <= limit.bytes)
        if not fits.any():
            break
        ratio = np.where(fits, gain / np.maximum(price, 1e-100), -1.0)
        unit, option = np.unravel_index(int(ratio.argmax()), ratio.shape)
        spent += price[unit, option]
        peaks[rows[unit]] += memory[unit, option] - memory[unit, chosen[unit]]
        chosen[unit] = option
    cuts = np.cumsum([len(p) for p in path])[:-1]
    return tuple(tuple(int(i) for i in part) for part in np.split(chosen, cuts))


def _alternatives(trellis: Trellis, path: Path) -> tuple[Array, Array, Array, Indices]:
    """Figures of every option of every unit, (Σ U, L), value -inf where not allowed; tasks."""
    figures = []
    for task, (levels, chosen) in enumerate(zip(trellis.levels(path), path, strict=True)):
        lowest = next(k for k, level in enumerate(levels) if level.is_trained)
        units = np.arange(len(levels))
        arc = np.where(units > lowest, ABOVE, PIVOT)
        tables = (trellis.cost, trellis.value, trellis.memory)
        cost, value, memory = (table[arc, task, units].copy() for table in tables)
        keep = np.array(chosen[:lowest], dtype=np.intp)
        below = units[:lowest]
        value[below] = -np.inf
        value[below, keep] = 0.0
        figures.append((cost, value, memory, np.full(len(levels), task)))
    cost, value, memory, rows = (np.concatenate(part) for part in zip(*figures, strict=True))
    return cost, value, memory, rows
