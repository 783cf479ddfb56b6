"""Shares and plans where tasks help or harm each other."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from lightning_attnbal.allocate import Limits, trained_units
from lightning_attnbal.core import check_integer
from lightning_attnbal.multitask._gains import ForecastGain
from lightning_attnbal.multitask._joint import allocate_offers
from lightning_attnbal.multitask._joint_build import list_offers
from lightning_attnbal.multitask._joint_terms import Levels, TaskSolution, TaskTerms

Equivalents = Mapping[tuple[str, str], Mapping[str, float]]
"""(i, k) → unit → own steps of task k that a step of task i stands for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mix:
    """Steps of each task, and its plan.

    Args:
        steps: task → steps, in [0, inf), whole or not.
        plans: task → levels in forward order.

    Example:
        >>> Mix(steps={"a": 3.0}, plans={"a": ()}).steps
        {'a': 3.0}
    """

    steps: Mapping[str, float]
    plans: Mapping[str, Levels]


@dataclass(frozen=True, slots=True, kw_only=True)
class CoupledSolution:
    """The best of the programmes that were solved.

    Args:
        solution: shares, plans and steps; its `value` and `bound` are those of the programme with
            what tasks do for each other held, or made linear, at the mix before.
        value: the objective with what the solution's own steps do for other tasks.
        gains: task → its gain in that programme.

    Example:
        >>> from lightning_attnbal.allocate import Progress
        >>> from lightning_attnbal.core import FULL, Menu, Option, Problem
        >>> from lightning_attnbal.multitask import Outlook
        >>> problem = Problem((Menu("all", (Option(level=FULL, cost=1, value=1),)),), task="a")
        >>> gain = ForecastGain(problem, Outlook(progress=Progress(), epoch_steps=100))
        >>> alone = TaskTerms(problem=problem, gain=gain)
        >>> now = Mix(steps={"a": 0.0}, plans={"a": (FULL,)})
        >>> found = allocate_coupled([alone], Limits(remaining=50), {}, now)
        >>> math.isclose(found.value, found.solution.value), found.solution.num_steps
        (True, {'a': 50})
    """

    solution: TaskSolution
    value: float
    gains: Mapping[str, ForecastGain]


def allocate_coupled(
    terms: Sequence[TaskTerms],
    limits: Limits,
    equivalents: Equivalents,
    now: Mix,
    *,
    objective: Literal["sum", "worst"] = "sum",
    grid: int = 20,
    rounds: int = 4,
) -> CoupledSolution:
    """As `allocate_tasks`, with each task credited for what its steps do for the others.

    With n_i steps of task i at plan p_i, the others' steps stand for

        c_k = Σ_{i≠k} n_i · Σ_{u trained by p_i} E_ik(u)

    own steps of k, and the objective is Σ_k w_k · G_k(p_k, n_k + c_k) (or the least of them). Each
    round solves the programme of `allocate_tasks` at the mix before: of the sum, its first-order
    model, c_k held and each step of i in which u trains credited with Σ_k w_k · E_ik(u) · G_k'; of
    the worst task, c_k held only. The next mix lies halfway to the steps found. Of all rounds the
    solution with the largest objective is taken, so further rounds never lose; nothing is proven
    about mixes that no round came by. Without equivalents one round is exact.

    Args:
        terms: one per task; each has a `ForecastGain`, alone.
        limits: what is left.
        equivalents: of `step_equivalents`.
        now: the mix to begin with.
        objective: the weighted sum of gains, or the worst weighted gain.
        grid: shares are multiples of 1 / grid, in [1, inf).
        rounds: programmes to solve, in [1, inf).

    Raises:
        TypeError: a gain is not a `ForecastGain`.
        ValueError: as `allocate_tasks`.

    Example:
        >>> from lightning_attnbal.allocate import Progress
        >>> from lightning_attnbal.core import FULL, Menu, Option, Problem
        >>> from lightning_attnbal.multitask import Outlook
        >>> menu = Menu("all", (Option(level=FULL, cost=1, value=1),))
        >>> terms = []
        >>> for name in ("a", "b"):
        ...     problem = Problem((menu,), task=name)
        ...     gain = ForecastGain(problem, Outlook(progress=Progress(), epoch_steps=100))
        ...     terms.append(TaskTerms(problem=problem, gain=gain))
        >>> now = Mix(steps={"a": 50, "b": 50}, plans={"a": (FULL,), "b": (FULL,)})
        >>> helping = {("a", "b"): {"all": 0.9}}
        >>> alone = allocate_coupled(terms, Limits(remaining=100), {}, now)
        >>> found = allocate_coupled(terms, Limits(remaining=100), helping, now)
        >>> alone.solution.shares["a"], found.solution.shares["a"] > 0.5
        (0.5, True)
    """
    check_integer("rounds", rounds, low=1)
    offers = list_offers(terms, limits)
    best: CoupledSolution | None = None
    for _ in range(rounds if equivalents else 1):
        gains = _gains_at(terms, equivalents, now, objective, grid)
        beside = [replace(task, gain=gains[task.name]) for task in terms]
        found = allocate_offers(beside, offers, limits, objective=objective, grid=grid)
        steps = {name: found.steps * share for name, share in found.shares.items()}
        mix = Mix(steps=steps, plans=found.plans)
        value = _value(terms, equivalents, mix, objective)
        if best is None or value > best.value:
            best = CoupledSolution(solution=found, value=value, gains=gains)
        halfway = {name: (steps[name] + now.steps.get(name, 0.0)) / 2 for name in steps}
        now = Mix(steps=halfway, plans=found.plans)
    assert best is not None
    return best


def help_from_others(
    task: str,
    steps: Mapping[str, float],
    equivalents: Equivalents,
    trained: Mapping[str, frozenset[str]] | None = None,
) -> float:
    """c_k: own steps that the steps of other tasks stand for.

    Args:
        task: k, who is helped.
        steps: task → steps.
        equivalents: of `step_equivalents`.
        trained: task → units that its steps train; None: all.

    Example:
        >>> given = {("b", "a"): {"low": 0.25, "high": 0.25}}
        >>> help_from_others("a", {"a": 10, "b": 4}, given)
        2.0
        >>> help_from_others("a", {"a": 10, "b": 4}, given, {"b": frozenset({"high"})})
        1.0
    """
    return float(
        sum(
            number * part
            for other, number in steps.items()
            for unit, part in equivalents.get((other, task), {}).items()
            if other != task and (trained is None or unit in trained[other])
        )
    )


def _gain(task: TaskTerms) -> ForecastGain:
    if not isinstance(task.gain, ForecastGain):
        msg = f"Expected the gain of task {task.name!r} to be a ForecastGain, but got {task.gain}."
        raise TypeError(msg)
    return task.gain


def _coming(terms: Sequence[TaskTerms], equivalents: Equivalents, mix: Mix) -> dict[str, float]:
    """c_k of every task."""
    trained = {task.name: trained_units(task.problem, mix.plans[task.name]) for task in terms}
    return {t.name: help_from_others(t.name, mix.steps, equivalents, trained) for t in terms}


def _gains_at(
    terms: Sequence[TaskTerms], equivalents: Equivalents, mix: Mix, objective: str, grid: int
) -> dict[str, ForecastGain]:
    """Every task's gain beside the others at a mix."""
    coming = _coming(terms, equivalents, mix)
    if objective == "worst":
        return {task.name: _gain(task).beside(coming[task.name]) for task in terms}
    ahead = max(1.0, sum(mix.steps.values()) / grid)
    slopes = {
        k.name: k.weight * _slope(_gain(k), mix, k.name, coming[k.name], ahead) for k in terms
    }
    gains = {}
    for task in terms:
        credit: dict[str, float] = {}
        for (helper, other), parts in equivalents.items():
            if helper == task.name:
                for unit, part in parts.items():
                    worth = part * slopes[other] / task.weight
                    credit[unit] = credit.get(unit, 0.0) + worth
        gains[task.name] = _gain(task).beside(coming[task.name], credit, is_on_top=True)
    return gains


def _slope(gain: ForecastGain, mix: Mix, name: str, coming: float, ahead: float) -> float:
    """What another own step is worth to a task; 0 where its plan is none that may be taken."""
    here, there = (
        _at(gain.beside(c), mix.plans[name], mix.steps[name]) for c in (coming, coming + ahead)
    )
    return (there - here) / ahead if math.isfinite(here) else 0.0


def _at(gain: ForecastGain, levels: Levels, steps: float) -> float:
    return float(gain(levels, np.array([steps]))[0])


def _value(terms: Sequence[TaskTerms], equivalents: Equivalents, mix: Mix, objective: str) -> float:
    """The objective of a mix."""
    coming = _coming(terms, equivalents, mix)
    gains = [
        k.weight * _at(_gain(k).beside(coming[k.name]), mix.plans[k.name], mix.steps[k.name])
        for k in terms
    ]
    return min(gains) if objective == "worst" else sum(gains)
