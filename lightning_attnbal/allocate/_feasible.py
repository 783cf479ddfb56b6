"""Arguments read and checked, and the cheapest plan: what can be done at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from lightning_attnbal.allocate._dual import ROUNDING, Limit
from lightning_attnbal.allocate._errors import InfeasibleMemoryError
from lightning_attnbal.allocate._sweep import Sweep
from lightning_attnbal.allocate._trellis import OPEN, Path, Trellis, least
from lightning_attnbal.core import InfeasibleBudgetError, Problem, check_number

_EVERY = 1 << 20


def prepare(
    problem: Problem | Sequence[Problem], budget: float | None, memory: float | None
) -> tuple[Trellis, Limit]:
    """Check the arguments, read the menus, and make sure that some plan fits each limit.

    Raises:
        ValueError: a number out of range, two tasks of one name, or menus without a valid plan.
        InfeasibleBudgetError: even the cheapest plan costs more.
        InfeasibleMemoryError: even the smallest plan needs more memory.
    """
    problems = [problem] if isinstance(problem, Problem) else list(problem)
    names = [p.task for p in problems]
    if not problems or len(set(names)) < len(names):
        msg = f"Expected `problem` to be one or more tasks of different names, but got {names}."
        raise ValueError(msg)
    trellis = Trellis.build(problems)
    limit = Limit(
        np.inf if budget is None else check_number("budget", budget, low=0),
        None if memory is None else check_number("memory", memory, low=0),
    )
    check_feasible(trellis, limit)
    return trellis, limit


def check_feasible(trellis: Trellis, limit: Limit) -> None:
    """Raise unless some plan fits the cost limit, and some plan the memory limit.

    Raises:
        ValueError: a task has no valid plan at all.
        InfeasibleBudgetError: even the cheapest plan costs more.
        InfeasibleMemoryError: even the smallest plan needs more memory.
    """
    costs = least(trellis, trellis.cost)[OPEN, :, -1, 0]
    for problem, cost in zip(trellis.problems, costs, strict=True):
        if not np.isfinite(cost):
            msg = (
                f"Expected the menus of task {problem.task!r} to allow a valid plan, "
                "but none can be formed."
            )
            raise ValueError(msg)
    if limit.memory is not None:
        peaks = trellis.fixed_memory + least(trellis, trellis.memory)[OPEN, :, -1, 0]
        if peaks.max() > limit.memory * (1 + ROUNDING):
            raise InfeasibleMemoryError(memory=limit.memory, smallest=float(peaks.max()))
    if trellis.fixed + costs.sum() > limit.cost * (1 + ROUNDING):
        cheapest_within(trellis, limit)


def cheapest_within(trellis: Trellis, limit: Limit) -> Path:
    """The cheapest plan within the memory limit, with cost and memory in swapped roles.

    Raises:
        InfeasibleBudgetError: it costs more than `limit.cost`.
        InfeasibleMemoryError: the smallest plan misses the memory limit by a rounding error.
    """
    path: Path = ()
    for problem in trellis.problems:
        task = Trellis.build([problem])
        memory = task.memory if limit.memory is not None else np.zeros_like(task.memory)
        swapped = replace(
            task,
            cost=memory,
            value=np.where(np.isfinite(task.value), -task.cost, -np.inf),
            memory=np.zeros_like(task.memory),
            fixed=problem.fixed_memory if limit.memory is not None else 0.0,
        )
        sweep = Sweep(swapped, Limit(limit.bytes), _EVERY)
        ends = sweep.paths(sweep.run().node[::-1])
        fitting = (end for end in ends if task.evaluate(end)[2] <= limit.bytes)
        path = (*path, *next(fitting, ends[-1]))
    smallest, _, peak = trellis.evaluate(path)
    if peak > limit.bytes:
        raise InfeasibleMemoryError(memory=limit.bytes, smallest=peak)
    if smallest > limit.cost:
        raise InfeasibleBudgetError(budget=limit.cost, smallest=smallest)
    return path
