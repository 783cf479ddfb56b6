"""Who gets the next steps, and what trains while they run: shares and plans under one budget."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from lightning_attnbal.allocate import Limits
from lightning_attnbal.core import check_choice
from lightning_attnbal.multitask._joint_build import Board, build, list_offers
from lightning_attnbal.multitask._joint_dual import least_cost
from lightning_attnbal.multitask._joint_offers import Offers
from lightning_attnbal.multitask._joint_solve import Answer, solve_sum, solve_worst
from lightning_attnbal.multitask._joint_steps import Spender, further_gain, whole_steps
from lightning_attnbal.multitask._joint_terms import Levels, TaskSolution, TaskTerms

_SOLVERS = {"sum": solve_sum, "worst": solve_worst}


def allocate_tasks(
    terms: Sequence[TaskTerms],
    limits: Limits,
    *,
    objective: Literal["sum", "worst"] = "sum",
    grid: int = 20,
    resolution: int = 32,
    totals: Sequence[float] | None = None,
) -> TaskSolution:
    """Share out the rest of the run: steps for each task, and a plan for each task's steps.

    With N the steps in all, s_i = g_i / grid the share of task i and p_i its plan,

        max Σ_i w_i · gain_i(p_i, N · s_i)     (or max min_i, then max Σ_i)
        subject to Σ_i N · s_i · cost_i(p_i) + min(1, N · s_i / epoch_i) · once_i(p_i) ≤ remaining,
        Σ_i s_i = 1, floor_i ≤ s_i ≤ cap_i, N ≤ max_steps, memory_i(p_i) ≤ memory,

    and all tasks with a share have the same prefix of units cached: a step that trains one of
    them, or runs it without the cache, would make the cache worthless or not use it. Units that a
    task does not have (only frozen, at no cost) go with any prefix. Each task pays its own one-off
    cost of filling the cache, as tasks have their own data; where they share it, this overrates it.

    Where every floor is its cap and they sum to 1, these are the shares, on the grid or not.

    Exact with respect to the grid, the totals N that are tried, and the plans that are tabled: for
    each task and prefix the exact frontier (thinned to `resolution` plans) and full training, in
    large problems the corners of its concave envelope instead. For additive gains a frontier loses
    nothing: where N and s_i are fixed, a plan that is dearer and worth less cannot help. Gains of
    your own are asked about the same plans.

    Args:
        terms: one per task; all problems list the same units in the same order.
        limits: what is left; `epoch_steps` is not used, each task has its own.
        objective: the weighted sum of gains, or the worst weighted gain.
        grid: shares are multiples of 1 / grid, in [1, inf).
        resolution: plans per task and prefix, in [2, inf).
        totals: numbers of steps N to try, each in (0, inf), cut to `max_steps`; None: what
            remains buys at costs per step from the cheapest plan to the dearest task's full
            training, evenly on a logarithmic scale, full training of all tasks alike, and
            `max_steps`. With these the value does not fall as the budget grows if no gain falls
            with its steps.

    Raises:
        ValueError: no tasks, two of one name, different units, floors and caps that no shares on
            the grid meet, menus without a valid plan or without a common prefix.
        InfeasibleBudgetError: what remains buys no step; names the smallest budget that does.
        InfeasibleMemoryError: the smallest plan of a task needs more memory.

    Source: own; the parts are those of `Answer`'s solvers: Lagrangian dual and lists with bounds.

    Example:
        >>> from lightning_attnbal.core import FROZEN, FULL, Menu, Option, Problem
        >>> rest, full = Option(level=FROZEN, cost=1, cost_above=1), Option(level=FULL, cost=2)
        >>> def task(name, low, high):
        ...     worth = [Option(level=FULL, cost=2, cost_above=1, value=v) for v in (low, high)]
        ...     menus = (Menu("low", (rest, worth[0])), Menu("high", (rest, worth[1])))
        ...     return TaskTerms(problem=Problem(menus, task=name), floor=0.25)
        >>> solution = allocate_tasks([task("easy", 0, 1), task("hard", 3, 3)],
        ...                           Limits(remaining=480, max_steps=100), grid=4)
        >>> dict(solution.num_steps), solution.value, solution.cost
        ({'easy': 25, 'hard': 75}, 475.0, 450.0)
        >>> [str(level) for level in solution.plans["easy"]]
        ['frozen', 'full']
    """
    offers = list_offers(terms, limits, resolution)
    return allocate_offers(terms, offers, limits, objective=objective, grid=grid, totals=totals)


def allocate_offers(
    terms: Sequence[TaskTerms],
    offers: Sequence[Sequence[Offers | None]],
    limits: Limits,
    *,
    objective: Literal["sum", "worst"],
    grid: int,
    totals: Sequence[float] | None = None,
) -> TaskSolution:
    """As `allocate_tasks`, of the plans in `list_offers`, which takes most of the time to find.

    Raises:
        ValueError: as `allocate_tasks`.
    """
    check_choice("objective", objective, _SOLVERS)
    board = build(terms, offers, limits, grid, totals)
    every = np.arange(len(board.cases.total))
    answer = _SOLVERS[objective](board.tables, limits.remaining, every)
    if answer is None:
        raise _infeasible(board, limits)
    return _solution(board, limits, answer, worst=objective == "worst")


def _infeasible(board: Board, limits: Limits) -> ValueError:
    """What to raise where no case has a mix within the budget."""
    smallest = float(least_cost(board.tables, np.arange(len(board.cases.total))).min())
    if np.isfinite(smallest):
        return limits.infeasible(smallest, "the cheapest plans for the fewest steps")
    names = ", ".join(task.name for task in board.terms)
    msg = (
        f"Expected the menus of tasks {names} to have plans with the same units cached "
        "(none, or a prefix) for shares within floors and caps, but there are none."
    )
    return ValueError(msg)


def _solution(board: Board, limits: Limits, answer: Answer, worst: bool) -> TaskSolution:
    """The answer by name, in whole steps."""
    names = [task.name for task in board.terms]
    spenders = _spenders(board, answer)
    total = float(board.cases.total[answer.case])
    price = answer.price
    if not worst or len(spenders) == len(names):
        price = max(price, further_gain(spenders, total, limits, np.min if worst else np.sum))
    steps, counts, cost = whole_steps(spenders, total, limits)
    shares = {spender.terms.name: spender.share for spender in spenders}
    return TaskSolution(
        shares={name: shares.get(name, 0.0) for name in names},
        plans=_resting(board, answer) | {s.terms.name: s.levels for s in spenders},
        num_steps={name: counts.get(name, 0) for name in names},
        steps=steps,
        cost=cost,
        value=answer.value,
        bound=answer.bound,
        shadow_price=price,
    )


def _resting(board: Board, answer: Answer) -> dict[str, Levels]:
    """The dearest plan of every task that goes with the prefix: for those without a share."""
    depth = board.cases.depth[answer.case]
    found = {}
    for task, offers in zip(board.terms, board.offers, strict=True):
        own = offers[depth] or next(o for o in offers if o is not None)
        found[task.name] = own.levels(len(own.cost) - 1)
    return found


def _spenders(board: Board, answer: Answer) -> list[Spender]:
    """The tasks that have a share."""
    depth = board.cases.depth[answer.case]
    found = []
    for i, task in enumerate(board.terms):
        share, offers = int(answer.mix.share[i, 0]), board.offers[i][depth]
        if share and offers is not None:
            levels = offers.levels(int(answer.mix.plan[i, 0]))
            part = float(board.tables[i].cases.shares[share])
            found.append(Spender(terms=task, share=part, levels=levels, once=offers.once))
    return found
