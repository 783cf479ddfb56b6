"""Random problems of every kind, and the trusted reference: try every plan."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product

import numpy as np
import pytest

from lightning_attnbal.core import (
    CACHED,
    DETACHED,
    FROZEN,
    FULL,
    LOCAL,
    Menu,
    Option,
    Problem,
    lora,
)

LEVELS = (CACHED, FROZEN, DETACHED, LOCAL, lora(2), lora(8), FULL)
Figures = tuple[float, float, float]


def make_problem(
    rng: np.random.Generator,
    num_units: int,
    *,
    whole: bool = False,
    negative: bool = True,
    task: str = "main",
    share: float = 1.0,
    levels_per_unit: int = 4,
) -> Problem:
    """A problem with random menus; the top unit can train, the others can be frozen."""

    def number(high: float) -> float:
        return float(rng.integers(0, int(high) + 1)) if whole else float(rng.uniform(0, high))

    def menu(index: int) -> Menu:
        size = int(rng.integers(1, levels_per_unit + 1))
        chosen = {LEVELS[i] for i in rng.choice(len(LEVELS), size, replace=False)}
        chosen |= {FULL} if index == num_units - 1 else {FROZEN}
        options = tuple(
            Option(
                level=level,
                cost=number(9),
                cost_above=number(5),
                value=float(rng.normal(1.0, 2.0)) if negative else float(rng.uniform(0, 3)),
                memory=number(9),
                memory_above=number(5),
            )
            for level in sorted(chosen, key=str)
        )
        return Menu(f"unit.{index}", options)

    menus = tuple(menu(i) for i in range(num_units))
    return Problem(menus, fixed=number(3), task=task, share=share, fixed_memory=number(3))


def every_plan(problem: Problem) -> list[Figures]:
    """(cost, value, memory) of every valid plan."""
    menus = [[option.level for option in menu.options] for menu in problem.menus]
    return [problem.evaluate(p) for p in product(*menus) if problem.why_invalid(p) is None]


def every_mix(problems: Sequence[Problem]) -> list[Figures]:
    """(Σ cost, Σ value, largest memory) of every combination of valid plans."""
    plans = [every_plan(problem) for problem in problems]
    return [
        (sum(f[0] for f in mix), sum(f[1] for f in mix), max(f[2] for f in mix))
        for mix in product(*plans)
    ]


def draw_instance(seed, *, whole=False, num_tasks=1, max_units=4):
    """A seeded instance: its problems and a generator for the limits."""
    rng = np.random.default_rng([seed, whole, num_tasks])
    share = 1.0 if num_tasks == 1 else 0.5
    problems = [
        make_problem(
            rng, int(rng.integers(1, max_units + 1)), whole=whole, task=f"task.{i}", share=share
        )
        for i in range(num_tasks)
    ]
    return problems, rng


def make_stack(seed=0, num_units=24, *, whole=True, task="main", share=1.0):
    """A deep problem with the usual levels; whole costs near 1,000 in all."""
    rng = np.random.default_rng(seed)
    menus = []
    for i in range(num_units):
        forward = float(rng.integers(5, 16)) if whole else float(rng.uniform(5, 15))
        options = (
            Option(level=CACHED, cost=0, memory=0),
            Option(level=FROZEN, cost=forward, cost_above=forward, memory=1, memory_above=4),
            Option(
                level=FULL,
                cost=2 * forward,
                cost_above=forward,
                value=float(rng.lognormal()),
                memory=9,
                memory_above=3,
            ),
        )
        menus.append(Menu(f"unit.{i}", options))
    return Problem(tuple(menus), fixed=1.0, task=task, share=share)


@pytest.fixture
def random_problem() -> Callable[..., Problem]:
    return make_problem


@pytest.fixture
def brute_force() -> Callable[[Sequence[Problem]], list[Figures]]:
    return every_mix


@pytest.fixture
def draw() -> Callable[..., tuple[list[Problem], np.random.Generator]]:
    return draw_instance


@pytest.fixture
def large() -> Callable[..., Problem]:
    return make_stack
