"""From terms to tables: checked, over all cached prefixes and numbers of steps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lightning_attnbal.allocate import Limits, frontier
from lightning_attnbal.core import check_integer, check_number
from lightning_attnbal.multitask._joint_offers import Offers, full_of, listed
from lightning_attnbal.multitask._joint_prefix import depths
from lightning_attnbal.multitask._joint_supported import supported
from lightning_attnbal.multitask._joint_table import AdditiveTable, Cases, TaskTable
from lightning_attnbal.multitask._joint_terms import Array, PlanGain, TaskTerms

_LISTED_UNITS = 500  # tasks × units × prefixes up to which frontiers are exact
_NUM_TOTALS = 20
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True, eq=False)
class Board:
    """What is to be decided, as tables.

    Args:
        terms: of the tasks.
        offers: per task, per length of the cached prefix.
        cases: all lengths with all totals, with the first task's shares.
        tables: per task.
    """

    terms: Sequence[TaskTerms]
    offers: Sequence[Sequence[Offers | None]]
    cases: Cases
    tables: Sequence[TaskTable]


def list_offers(
    terms: Sequence[TaskTerms], limits: Limits, resolution: int = 32
) -> list[list[Offers | None]]:
    """Per task and prefix the plans worth having, whatever the gains, bounds and weights.

    Raises:
        ValueError: as `allocate_tasks`.
        InfeasibleMemoryError: the smallest plan of a task needs more memory.
    """
    check_integer("resolution", resolution, low=2)
    check_tasks(terms)
    return [_offers(task, terms, limits, resolution) for task in terms]


def build(
    terms: Sequence[TaskTerms],
    offers: Sequence[Sequence[Offers | None]],
    limits: Limits,
    grid: int,
    totals: Sequence[float] | None,
) -> Board:
    """Check shares and totals, and tabulate what the plans gain.

    Raises:
        ValueError: as `allocate_tasks`.
    """
    every, bounds = _shares(terms, grid)
    if totals is None:
        tried = default_totals(terms, offers, limits)
    else:
        tried = np.unique([check_number("totals", n, low=0, low_open=True) for n in totals])
        tried = np.unique(np.minimum(tried, limits.max_steps or np.inf))
    tables = [
        _table(task, plans, Cases.cross(len(plans), tried, shares), low_high)
        for task, plans, shares, low_high in zip(terms, offers, every, bounds, strict=True)
    ]
    return Board(terms, offers, tables[0].cases, tables)


def _shares(terms: Sequence[TaskTerms], grid: int) -> tuple[list[Array], list[tuple[int, int]]]:
    """Per task the shares it may have, and floor and cap as positions among them.

    Positions of all tasks sum to the last one. Shares that floors and caps leave no choice about
    are one position each.

    Raises:
        ValueError: as `allocate_tasks`.
    """
    check_integer("grid", grid, low=1)
    fixed = [task.floor for task in terms if task.floor == task.cap > 0]
    if len(fixed) == len(terms) and abs(sum(fixed) - 1) < _ROUNDING:
        positions: Array = np.arange(len(terms) + 1.0)
        return [positions * share for share in fixed], [(1, 1)] * len(terms)
    return [np.arange(grid + 1) / grid] * len(terms), check_bounds(terms, grid)


def check_tasks(terms: Sequence[TaskTerms]) -> None:
    """Refuse tasks that cannot be decided on together.

    Raises:
        ValueError: no tasks, two of one name, or different units.
    """
    names = [task.name for task in terms]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if not names or twice:
        msg = f"Expected `terms` to be one or more tasks of different names, but got {names}."
        raise ValueError(msg)
    units = [[menu.unit for menu in task.problem.menus] for task in terms]
    for name, own in zip(names, units, strict=True):
        if own != units[0]:
            msg = (
                f"Expected the problems of all tasks to list the same units in the same order "
                f"({', '.join(units[0])}), but task {name!r} has {', '.join(own)}."
            )
            raise ValueError(msg)


def check_bounds(terms: Sequence[TaskTerms], grid: int) -> list[tuple[int, int]]:
    """Floors and caps in units of 1 / grid.

    Raises:
        ValueError: no shares within all bounds.
    """
    bounds = [
        (int(np.ceil(task.floor * grid - _ROUNDING)), int(task.cap * grid + _ROUNDING))
        for task in terms
    ]
    lows, highs = zip(*bounds, strict=True)
    if sum(lows) > grid or sum(highs) < grid or any(low > high for low, high in bounds):
        msg = (
            f"Expected floors and caps of the tasks to leave shares in steps of 1/{grid} that "
            f"sum to 1, but got floors of {lows} and caps of {highs} such steps; try a finer grid."
        )
        raise ValueError(msg)
    return bounds


def _offers(
    task: TaskTerms, terms: Sequence[TaskTerms], limits: Limits, resolution: int
) -> list[Offers | None]:
    """Per prefix, the plans of a task.

    Raises:
        ValueError: its menus allow no valid plan.
        InfeasibleMemoryError: its smallest plan needs more memory.
    """
    lengths = depths([other.problem for other in terms])
    if len(terms) * len(task.problem.menus) * len(lengths) <= _LISTED_UNITS:
        found = [listed(task.problem, d, limits.memory, resolution) for d in lengths]
    else:
        found = supported(task.problem, len(lengths), limits.memory, resolution)
    if not any(found):
        frontier(task.problem, memory=limits.memory, resolution=1)  # says why
        found = [listed(task.problem, d, limits.memory, resolution) for d in lengths]
    return found


def default_totals(
    terms: Sequence[TaskTerms], offers: Sequence[Sequence[Offers | None]], limits: Limits
) -> Array:
    """Numbers of steps to try, rising, in [1, max_steps]: see `allocate_tasks`.

    Each is fixed, or what remains over a fixed cost, or the smaller of both: so that with a larger
    budget no choice is lost.

    Raises:
        ValueError: no plan costs anything and nothing else ends the run.
    """
    costs = np.concatenate([plans.cost for task in offers for plans in task if plans is not None])
    top = float(costs.max())
    if not top and limits.max_steps is None:
        msg = "Expected `max_steps` where no plan costs anything, but got None."
        raise ValueError(msg)
    full = [full_of(task.problem, None) for task in terms]
    alike = np.mean([t.problem.evaluate(p)[0] for t, p in zip(terms, full, strict=True) if p])
    bottom = max(float(costs.min()), 1e-3 * top)
    prices = [*np.geomspace(bottom, top, _NUM_TOTALS), alike] if top else []
    most = limits.max_steps or np.inf
    bought = [limits.remaining / price for price in prices if price]
    tried: Array = np.unique(np.minimum([1.0, *bought, most], most))
    return tried[(tried >= 1) & np.isfinite(tried)]


def _table(
    task: TaskTerms, offers: Sequence[Offers | None], cases: Cases, bounds: tuple[int, int]
) -> TaskTable:
    """The plans of a task, padded by repeating the first one of each prefix."""
    width = max(len(plans.cost) for plans in offers if plans is not None)
    cost, value = np.zeros((2, len(offers), width))
    for d, plans in enumerate(offers):
        if plans is not None:
            which = np.arange(width) * (np.arange(width) < len(plans.cost))
            cost[d], value[d] = plans.cost[which], plans.value[which]
    plain = AdditiveTable(
        terms=task,
        cases=cases,
        low=bounds[0],
        high=bounds[1],
        cost=cost,
        once=np.array([0.0 if plans is None else plans.once for plans in offers]),
        is_open=np.array([plans is not None for plans in offers]),
        value=task.weight * value,
    )
    if task.gain is None:
        return plain
    return plain.curved(task.weight * _gains(task, offers, cases, width))


def _checked(name: str, answer: Array, *shape: int) -> Array:
    """What a gain answered: numbers, in this shape, of which the last length is that of the steps.

    Raises:
        ValueError: it is something else.
    """
    gains = np.asarray(answer, dtype=np.float64)
    if gains.shape != shape or np.isnan(gains).any():
        whole = " x ".join(map(str, shape))
        msg = (
            f"Expected `gain` of task {name!r} to answer {whole} numbers, one per number of "
            f"steps, but got {gains}."
        )
        raise ValueError(msg)
    return gains


def _gains(task: TaskTerms, offers: Sequence[Offers | None], cases: Cases, width: int) -> Array:
    """The task's own gain of every plan in every case, (P, G + 1, J); -inf where padded.

    Raises:
        ValueError: it does not answer one number per number of steps.
    """
    assert task.gain is not None
    num_totals = len(cases.total) // len(offers)
    wanted = cases.steps[:num_totals, 1:]
    steps, where = np.unique(wanted, return_inverse=True)
    table = np.full((len(offers), num_totals, cases.grid + 1, width), -np.inf)
    there = [(d, plans) for d, plans in enumerate(offers) if plans is not None]
    own = [plans.levels(j) for _, plans in there for j in range(len(plans.cost))]
    num = len(steps)
    if isinstance(task.gain, PlanGain):
        values = np.concatenate([plans.value for _, plans in there])
        found = _checked(task.name, task.gain.table(own, values, steps), len(own), num)
    else:
        found = np.array([_checked(task.name, task.gain(levels, steps), num) for levels in own])
    ends = np.cumsum([len(plans.cost) for _, plans in there])
    for (d, _), gains in zip(there, np.split(found, ends[:-1]), strict=True):
        placed = gains[:, where].reshape(-1, *wanted.shape)
        table[d, :, 1:, : len(gains)] = np.moveaxis(placed, 0, -1)
    return table.reshape(len(cases.total), cases.grid + 1, width)
