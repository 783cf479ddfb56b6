"""Solvers: the most valuable plan within a budget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lightning_attnbal.allocate._depths import DepthTable, depth_bound
from lightning_attnbal.allocate._dual import Dual, Limit, is_proven, minimise
from lightning_attnbal.allocate._feasible import cheapest_within, prepare
from lightning_attnbal.allocate._grid import Grid, room_on_grid
from lightning_attnbal.allocate._primal import best_mix, polish
from lightning_attnbal.allocate._solution import Solution, as_solution
from lightning_attnbal.allocate._sweep import Sweep
from lightning_attnbal.allocate._trellis import Path, Trellis
from lightning_attnbal.core import Problem, check_integer

_EXACT_OPTIONS = 1000
_WIDENINGS = 3
_ROUNDS = 3
_SMALL_GAP = 1e-2


@dataclass(frozen=True, slots=True)
class _Known:
    """A plan that keeps the limits, and its true (cost, value, memory)."""

    path: Path
    figures: tuple[float, float, float]

    @property
    def value(self) -> float:
        return self.figures[1]


def solve(
    problem: Problem | Sequence[Problem],
    budget: float,
    *,
    memory: float | None = None,
    resolution: int = 1000,
) -> Solution:
    """The most valuable valid plan whose cost per step is at most `budget`.

    max Σ_i share_i · Σ_u value_{i,u}  subject to  Σ_i c_i ≤ budget and, for every task i, memory_i
    ≤ memory, with c_i as in `Problem`, each task with its own lowest trained unit. Exact up to
    1,000 options (tasks × units × levels), Lagrangian above; `gap` says how far from the best the
    answer can be.

    Args:
        problem: one task, or several that share the budget.
        budget: cost per step in the unit of the menus, in [0, inf).
        memory: peak bytes, in [0, inf), or None for no limit.
        resolution: plans kept per list of the exact solver, in [1, inf). With whole-number costs,
            a budget of at most 2,000 and no memory limit there are no lists: nothing is cut.

    Raises:
        ValueError: a number out of range, two tasks of one name, or menus that allow no valid plan.
        InfeasibleBudgetError: even the cheapest plan within `memory` costs more; names its cost.
        InfeasibleMemoryError: even the smallest plan needs more memory; names its peak.

    Example:
        >>> from lightning_attnbal.core import CACHED, FROZEN, FULL, Menu, Option, Problem
        >>> menu = (Option(level=CACHED, cost=0), Option(level=FROZEN, cost=1, cost_above=1),
        ...         Option(level=FULL, cost=2, cost_above=1, value=3))
        >>> solution = solve(Problem(tuple(Menu(f"layer.{i}", menu) for i in range(3))), budget=5)
        >>> print(solution.plan, solution.cost, solution.value, solution.gap)
        cached: layer.0 · full: layer.1, layer.2 5.0 6.0 0.0
    """
    trellis, limit = prepare(problem, budget, memory)
    if trellis.num_options > _EXACT_OPTIONS:
        return _lagrangian(trellis, limit)
    return _exact(trellis, limit, check_integer("resolution", resolution, low=1))


def solve_exact(
    problem: Problem | Sequence[Problem],
    budget: float,
    *,
    memory: float | None = None,
    resolution: int = 1000,
) -> Solution:
    """Solve by dynamic programming; arguments as for `solve`.

    On the grid of costs where they are whole, the budget is at most 2,000 and there is no memory
    limit; over lists of plans elsewhere. Lists start with at most `resolution` plans and grow up to
    64 × `resolution` until nothing that was cut could have been better; should that not suffice,
    the gap says by how much the cut plans could be better.

    Source: see `lightning_attnbal/allocate/README.md`.

    Example:
        >>> from lightning_attnbal.core import FROZEN, FULL, Menu, Option, Problem
        >>> menu = (Option(level=FROZEN, cost=1, cost_above=1),
        ...         Option(level=FULL, cost=2, cost_above=1, value=3))
        >>> problem = Problem((Menu("low", menu), Menu("high", menu)))
        >>> solution = solve_exact(problem, budget=5)
        >>> print(solution.plan, solution.value, solution.gap)
        full: low, high 6.0 0.0
    """
    trellis, limit = prepare(problem, budget, memory)
    return _exact(trellis, limit, check_integer("resolution", resolution, low=1))


def solve_lagrangian(
    problem: Problem | Sequence[Problem], budget: float, *, memory: float | None = None
) -> Solution:
    """Solve by Lagrangian relaxation, whatever the size; arguments as for `solve`.

    Source: Fisher, "The Lagrangian relaxation method for solving integer programming problems",
    1981.

    Example:
        >>> from lightning_attnbal.core import FROZEN, FULL, Menu, Option
        >>> full = Option(level=FULL, cost=2, cost_above=1, value=3)
        >>> menu = (Option(level=FROZEN, cost=1, cost_above=1), full)
        >>> solution = solve_lagrangian(Problem((Menu("low", menu), Menu("high", menu))), budget=4)
        >>> solution.value, solution.bound >= solution.value
        (3.0, True)
    """
    return _lagrangian(*prepare(problem, budget, memory))


def _relax(trellis: Trellis, limit: Limit, rounds: int) -> tuple[_Known, Dual, float]:
    """Minimise the dual, mix and repair a plan, branch for the bound; finer λ each round."""
    dual = minimise(trellis, limit)
    known, bound = None, np.inf
    for _ in range(rounds):
        table = DepthTable.build(trellis, dual)
        known = _better(trellis, limit, known, best_mix(table, trellis, limit))
        tighter, lam = depth_bound(table, trellis, limit, known.value)
        bound = min(bound, tighter)
        if bound - known.value <= _SMALL_GAP * abs(bound):
            break
        lam, mu = (
            np.append(dual.lam, lam),
            np.append(dual.mu, np.full_like(lam, dual.mu[dual.best])),
        )
        dual = Dual.evaluate(trellis, limit, lam, mu)
    assert known is not None
    return known, dual, bound


def _better(trellis: Trellis, limit: Limit, known: _Known | None, new: Path | None) -> _Known:
    """The better one of a known plan and a new one after repair, or the cheapest plan."""
    if new is None:
        new = known.path if known else cheapest_within(trellis, limit)
    for path in (polish(trellis, limit, new), new):
        found = _Known(path, trellis.evaluate(path))
        if limit.allows(found.figures):
            return found if known is None or found.value > known.value else known
    return known or _better(trellis, limit, None, cheapest_within(trellis, limit))


def _lagrangian(trellis: Trellis, limit: Limit) -> Solution:
    known, dual, bound = _relax(trellis, limit, _ROUNDS)
    price = float(dual.lam[dual.best])
    return as_solution(
        trellis, known.path, known.figures, bound=bound, shadow_price=price, method="lagrangian"
    )


def _exact(trellis: Trellis, limit: Limit, resolution: int) -> Solution:
    return _on_grid(trellis, limit) or _by_lists(trellis, limit, resolution)


def _on_grid(trellis: Trellis, limit: Limit) -> Solution | None:
    """The optimum, or None where costs lie on no small grid or rounding breaks the limit."""
    room = room_on_grid(trellis, limit)
    if room is None:
        return None
    path, found = Grid(trellis, room).best()
    if not np.isfinite(found):
        return None
    figures = trellis.evaluate(path)
    if not limit.allows(figures):
        return None
    dual, bound = minimise(trellis, limit), max(found, figures[1])
    price = float(dual.lam[dual.best])
    return as_solution(trellis, path, figures, bound=bound, shadow_price=price, method="exact")


def _by_lists(trellis: Trellis, limit: Limit, resolution: int) -> Solution:
    known, dual, bound = _relax(trellis, limit, 1)
    for widening in range(_WIDENINGS):
        if is_proven(known.value, bound):
            break
        sweep = Sweep(trellis, limit, resolution * 8**widening, dual, known.value)
        known, found = _best_end(sweep, known)
        bound = min(bound, max(found, known.value, sweep.lost))
    price = float(dual.lam[dual.best])
    return as_solution(
        trellis, known.path, known.figures, bound=bound, shadow_price=price, method="exact"
    )


def _best_end(sweep: Sweep, known: _Known) -> tuple[_Known, float]:
    """The better of a known plan and the best of a sweep, and the best value up to rounding."""
    ends = sweep.run()
    found = float(ends.figures[1].max(initial=-np.inf))
    for node in ends.node[::-1]:
        (path,) = sweep.paths(node[None])
        end = _Known(path, sweep.trellis.evaluate(path))
        if end.value <= known.value:
            break
        if sweep.limit.allows(end.figures):
            return end, found
    return known, found
