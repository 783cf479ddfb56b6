"""Whole costs within a small budget: the exact solver on the grid of costs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from lightning_attnbal.allocate import solve_exact
from lightning_attnbal.core import FROZEN, FULL, Menu, Option, Problem

pytestmark = pytest.mark.filterwarnings("error")
CHANGES = {
    "as drawn": lambda o: o,
    "ties": lambda o: replace(o, value=float(round(o.value))),
    "no cost": lambda o: replace(o, cost=0.0, cost_above=0.0),
    "big values": lambda o: replace(o, value=1e12 * o.value),
    "no value": lambda o: replace(o, value=0.0),
    "dear": lambda o: replace(o, cost=100 * o.cost, cost_above=1e6 * o.cost_above),
}


def changed(problem, change, **fields):
    """The problem with other options."""
    menus = tuple(replace(m, options=tuple(change(o) for o in m.options)) for m in problem.menus)
    return replace(problem, menus=menus, **fields)


def scaled(factor):
    """A change of the costs."""
    return lambda o: replace(o, cost=factor * o.cost, cost_above=factor * o.cost_above)


def check(problems, mixes, budget):
    """The most valuable mix, proven, and the cheapest such mix."""
    solution = solve_exact(problems, budget)
    best = max(value for cost, value, _ in mixes if cost <= budget)
    assert solution.cost <= budget
    assert solution.value == pytest.approx(best, rel=1e-12, abs=1e-12)
    assert solution.gap == pytest.approx(0.0, abs=1e-12 * max(1.0, abs(best)))
    equal = [cost for cost, value, _ in mixes if value >= best - 1e-12 * max(1.0, abs(best))]
    assert solution.cost == pytest.approx(min(equal))


@pytest.mark.parametrize("fixed", [0.0, 0.7], ids=["nothing fixed", "fixed cost not whole"])
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_equals_brute_force(draw, brute_force, change, fixed):
    for seed in range(30):
        (drawn,), rng = draw(seed, whole=True)
        problem = changed(drawn, change, fixed=fixed)
        mixes = brute_force([problem])
        check([problem], mixes, float(rng.choice([m[0] for m in mixes])))


@pytest.mark.parametrize(
    "shares", [(0.5, 0.5), (0.1, 0.3), (0.2, 0.3, 0.5)], ids=["equal", "not all", "three"]
)
def test_tasks_share_one_budget_as_in_brute_force(draw, brute_force, shares):
    for seed in range(20):
        drawn, rng = draw(seed, whole=True, num_tasks=len(shares), max_units=4 - len(shares) // 2)
        problems = [
            changed(p, scaled(10), share=share) for p, share in zip(drawn, shares, strict=True)
        ]
        mixes = brute_force(problems)
        check(problems, mixes, float(rng.choice([m[0] for m in mixes])))


def test_true_cost_decides_where_shares_round_it_over_the_budget():
    menus = [
        Menu(f"unit.{i}", (Option(level=FULL, cost=cost, value=cost), Option(level=FROZEN, cost=0)))
        for i, cost in enumerate([75, 150, 300])
    ]
    problem = Problem(tuple(menus), share=1 / 75)
    assert problem.evaluate((FULL,) * 3)[0] > 7.0  # whole for each unit alone
    solution = solve_exact(problem, 7.0)
    assert (solution.cost, solution.value) == (6.0, 6.0)
    assert solution.bound >= 6.0


@pytest.mark.parametrize("num_tasks", [1, 3])
def test_grid_and_lists_agree_on_deep_problems_across_the_largest_grid(large, num_tasks):
    problems = [large(i, 90 // num_tasks, task=f"task.{i}") for i in range(num_tasks)]
    values = []
    for budget in (100, 700, 1500, 1999, 2000, 2001, 2002, 2003, 2004):
        solution = solve_exact(problems, float(budget))
        listed = solve_exact(problems, float(budget), memory=1e9)  # a memory limit rules out a grid
        assert solution.value == pytest.approx(listed.value, rel=1e-12)
        assert solution.gap == listed.gap == 0.0
        assert solution.cost <= budget
        values.append(solution.value)
    assert values == sorted(values)


def test_shadow_price_nearly_minimises_the_dual_bound(draw, brute_force):
    for seed in range(30):
        problems, rng = draw(seed, whole=True)
        mixes = np.array(brute_force(problems))
        budget = float(rng.choice(mixes[:, 0]))

        def bound(price, mixes=mixes, budget=budget):
            return (mixes[:, 1] + price * (budget - mixes[:, 0])).max()

        solution = solve_exact(problems, budget)
        least = min(bound(price) for price in [0.0, *np.geomspace(1e-3, 1e3, 500)])
        assert bound(0.0) >= bound(solution.shadow_price) - 1e-9
        assert bound(solution.shadow_price) <= least + 0.03 * np.ptp(mixes[:, 1])
        assert bound(solution.shadow_price) >= solution.value - 1e-9
