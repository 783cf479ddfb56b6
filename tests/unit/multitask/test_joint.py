"""The joint allocation against trying every share, prefix and plan."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from lightning_attnbal.allocate import Limits, solve, solve_exact
from lightning_attnbal.core import (
    CACHED,
    FROZEN,
    FULL,
    InfeasibleBudgetError,
    Menu,
    Option,
    Problem,
)
from lightning_attnbal.multitask import TaskTerms, allocate_tasks
from tests.unit.multitask.joint_cases import (
    GRID,
    Kind,
    draw_terms,
    every_choice,
    least_memory,
    stack,
)

KINDS = {
    "additive": Kind(),
    "floors and caps": Kind(bounds=True),
    "cached": Kind(cached=True),
    "concave gains": Kind(concave=True),
    "all of it": Kind(bounds=True, cached=True, concave=True),
    "whole numbers": Kind(bounds=True, cached=True, whole=True),
    "memory": Kind(cached=True, memory=True),
}
SEEDS = 30


def instance(seed, kind):
    """Terms, totals, memory limit and all choices of a seeded instance that has any."""
    rng = np.random.default_rng([seed, *map(int, vars(kind).values())])
    while True:
        terms = draw_terms(rng, kind)
        totals = [float(n) for n in rng.choice([3.0, 8.0, 12.5, 40.0], 2, replace=False)]
        memory = least_memory(terms) + float(rng.uniform(0, 15)) if kind.memory else None
        lows = sum(np.ceil(GRID * t.floor - 1e-9) for t in terms)
        highs = sum(np.floor(GRID * t.cap + 1e-9) for t in terms)
        if lows <= GRID <= highs:
            choices = every_choice(terms, totals, memory)
            if len(choices):
                return terms, totals, memory, choices, rng


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_joint_allocation_equals_brute_force(kind):
    for seed in range(SEEDS):
        terms, totals, memory, choices, rng = instance(seed, kind)
        budget = float(np.quantile(choices[:, 0], rng.uniform(0, 1)))
        limits = Limits(remaining=budget, memory=memory)
        settings = {"grid": GRID, "totals": totals, "resolution": 1000}
        for objective, column in (("sum", 1), ("worst", 2)):
            best = choices[choices[:, 0] <= budget * (1 + 1e-12), column].max()
            solution = allocate_tasks(terms, limits, objective=objective, **settings)
            assert solution.value == pytest.approx(best, rel=1e-9, abs=1e-9), (seed, objective)
            assert solution.gap <= 1e-9 * abs(best), (seed, objective)


@pytest.mark.parametrize("kind", ["cached", "concave gains", "all of it"])
def test_floors_that_are_caps_are_the_shares_though_not_on_the_grid(kind):
    shares = (1 / 3, 1 - 1 / 3)
    for seed in range(SEEDS):
        drawn, totals, memory, _, rng = instance(seed, KINDS[kind])
        pairs = zip(drawn[:2], shares, strict=True)
        terms = [replace(task, floor=share, cap=share) for task, share in pairs]
        choices = every_choice(terms, totals, memory, grid=3)
        limits = Limits(remaining=float(np.quantile(choices[:, 0], rng.uniform())), memory=memory)
        for objective, column in (("sum", 1), ("worst", 2)):
            settings = {"totals": totals, "resolution": 1000, "objective": objective}
            found = allocate_tasks(terms, limits, grid=20, **settings)
            best = choices[choices[:, 0] <= limits.remaining * (1 + 1e-12), column].max()
            assert found.value == pytest.approx(best, rel=1e-9, abs=1e-9), (seed, objective)
            assert tuple(found.shares.values()) == shares


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_too_small_a_budget_names_the_smallest_that_is_not(kind):
    for seed in range(5):
        terms, totals, memory, choices, _ = instance(seed, kind)
        smallest = choices[:, 0].min()
        keywords = {"grid": GRID, "totals": totals, "resolution": 1000}
        with pytest.raises(InfeasibleBudgetError, match="to be at least") as caught:
            allocate_tasks(terms, Limits(remaining=0.99 * smallest, memory=memory), **keywords)
        assert caught.value.smallest == pytest.approx(smallest)
        limits = Limits(remaining=caught.value.smallest * (1 + 1e-12), memory=memory)
        assert allocate_tasks(terms, limits, **keywords).cost <= limits.remaining


@pytest.mark.parametrize("objective", ["sum", "worst"])
@pytest.mark.parametrize("max_steps", [None, 37])
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_whole_steps_keep_the_budget_and_the_plans_are_consistent(kind, max_steps, objective):
    for seed in range(4):
        terms, _, memory, _, rng = instance(seed, kind)
        limits = Limits(remaining=float(rng.uniform(100, 900)), max_steps=max_steps, memory=memory)
        solution = allocate_tasks(terms, limits, objective=objective, grid=GRID)
        spent = 0.0
        for task in terms:
            steps, share = solution.num_steps[task.name], solution.shares[task.name]
            assert abs(steps - share * sum(solution.num_steps.values())) < 1
            assert task.floor - 1e-9 <= share <= task.cap + 1e-9
            if share:
                levels = solution.plans[task.name]
                cost, _, peak = task.problem.evaluate(levels)
                spent += steps * cost + task.once(steps, max(0.0, task.problem.one_off(levels)))
                assert peak <= (memory or np.inf)
        assert solution.cost == pytest.approx(spent)
        assert spent <= limits.remaining
        assert sum(solution.num_steps.values()) <= (max_steps or np.inf)
        assert sum(solution.shares.values()) == pytest.approx(1)
        assert set(solution.plans) == set(solution.shares)


@pytest.mark.parametrize("objective", ["sum", "worst"])
@pytest.mark.parametrize("max_steps", [None, 60])
@pytest.mark.parametrize("kind", [Kind(concave=True), Kind(cached=True, concave=True, bounds=True)])
def test_value_never_falls_as_the_budget_grows(kind, max_steps, objective):
    for seed in range(3):
        terms, *_ = instance(seed, kind)
        values = [
            allocate_tasks(
                terms,
                Limits(remaining=budget, max_steps=max_steps),
                objective=objective,
                grid=GRID,
            ).value
            for budget in np.geomspace(120.0, 3000.0, 12).tolist()
        ]
        assert all(b >= a - 1e-9 * abs(a) for a, b in pairwise(values)), (seed, values)


@pytest.mark.parametrize("objective", ["sum", "worst"])
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_order_of_tasks_is_irrelevant(kind, objective):
    for seed in range(4):
        terms, totals, memory, choices, rng = instance(seed, kind)
        limits = Limits(remaining=float(np.median(choices[:, 0])), memory=memory)
        one, other = (
            allocate_tasks(order, limits, objective=objective, grid=GRID, totals=totals)
            for order in (terms, [terms[i] for i in rng.permutation(len(terms))])
        )
        assert one.value == pytest.approx(other.value, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("budget", [0.2, 0.5, 0.8])
@pytest.mark.parametrize("objective", ["sum", "worst"])
def test_one_task_gets_the_best_plan_of_the_allocator(objective, budget):
    problem = stack("only", seed=3, num_units=6)
    remaining = budget * 50 * problem.evaluate((FULL,) * 6)[0]
    solution = allocate_tasks(
        [TaskTerms(problem=problem)],
        Limits(remaining=remaining, max_steps=50),
        objective=objective,
        totals=[50],
        resolution=1000,
    )
    assert solution.value == pytest.approx(50 * solve(problem, remaining / 50).value)
    assert solution.num_steps == {"only": 50}


@pytest.mark.parametrize("memory", [None, 150.0], ids=["any memory", "little memory"])
@pytest.mark.parametrize("budget", [0.2, 0.5, 0.8])
def test_large_tasks_lose_little_to_the_envelope(budget, memory):
    """50 units and prefixes are beyond exact frontiers; one task can still be solved exactly."""
    problem = stack("only", seed=5, num_units=50)
    remaining = budget * 10 * problem.evaluate((FULL,) * 50)[0]
    limits = Limits(remaining=remaining, max_steps=10, memory=memory)
    solution = allocate_tasks([TaskTerms(problem=problem)], limits, totals=[10])
    best = solve_exact(problem, remaining / 10, memory=memory)
    assert 0.95 * best.bound <= solution.value / 10 <= best.bound * (1 + 1e-9)
    levels = solution.plans["only"]
    cost, value, peak = problem.evaluate(levels)
    assert (10 * cost, 10 * value) == pytest.approx((solution.cost, solution.value))
    assert peak <= (memory or np.inf)


def test_all_tasks_cache_the_same_prefix():
    """Alone, the first would train from the bottom and the second from the top."""
    low = TaskTerms(problem=stack("low", values=[9, 0.1, 0.1, 0.1]), floor=0.25)
    high = TaskTerms(problem=stack("high", values=[0, 0, 0, 1]), floor=0.25)
    limits = Limits(remaining=150, max_steps=60)
    for weight, cached in ((1.0, 0), (0.001, 2)):
        terms = [replace(low, weight=weight), high]
        solution = allocate_tasks(terms, limits)
        prefixes = {sum(lv == CACHED for lv in levels) for levels in solution.plans.values()}
        assert prefixes == {cached}


def test_the_cheaper_of_two_equal_tasks_gets_the_steps():
    cheap, dear = stack("cheap"), stack("dear")
    dear = replace(dear, fixed=10 * sum(m.options[1].cost for m in dear.menus))
    solution = allocate_tasks(
        [TaskTerms(problem=p, floor=0.1, cap=0.9) for p in (cheap, dear)], Limits(remaining=5000)
    )
    assert solution.shares == pytest.approx({"cheap": 0.9, "dear": 0.1})


def test_the_worst_task_is_lifted_before_the_sum():
    good, poor = stack("good", values=[0, 0, 0, 9]), stack("poor", values=[0, 0, 0, 1])
    terms = [TaskTerms(problem=problem) for problem in (good, poor)]
    solution = allocate_tasks(terms, Limits(remaining=5000), objective="worst", grid=10)
    assert solution.shares == pytest.approx({"good": 0.1, "poor": 0.9})


def test_shadow_price_is_what_more_budget_adds():
    terms = [TaskTerms(problem=stack(name, seed=i)) for i, name in enumerate("ab")]
    one, more = (allocate_tasks(terms, Limits(remaining=b)) for b in (1000.0, 1001.0))
    assert one.shadow_price == pytest.approx(more.value - one.value, rel=1e-6)


def test_plans_that_gain_minus_infinity_are_not_taken():
    """As for plans that freeze what was never trained."""

    def only_full(levels, steps):
        return steps if set(levels) == {FULL} else np.full_like(steps, -np.inf)

    problem = stack("new")
    terms = [TaskTerms(problem=problem, gain=only_full, floor=0.5), TaskTerms(problem=stack("one"))]
    for objective in ("sum", "worst"):
        solution = allocate_tasks(terms, Limits(remaining=500), objective=objective)
        assert set(solution.plans["new"]) == {FULL}
        assert solution.plans["one"][0] != CACHED


def test_one_off_costs_are_paid_over_an_epoch_of_the_task():
    head = Option(level=FULL, cost=1, value=1)
    low = Menu("low", (Option(level=CACHED, cost=0, once=50), Option(level=FROZEN, cost=1)))
    problem = Problem((low, Menu("high", (head,))))
    for epoch_steps, steps, is_cached in ((None, 50, False), (None, 200, True), (400, 50, True)):
        terms = [TaskTerms(problem=problem, epoch_steps=epoch_steps)]
        limits = Limits(remaining=2 * steps - 1, max_steps=steps)
        solution = allocate_tasks(terms, limits, totals=[steps - 1])
        assert (solution.plans["main"][0] == CACHED) is is_cached
