"""The solvers against trying every plan."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lightning_attnbal.allocate import (
    InfeasibleMemoryError,
    frontier,
    solve,
    solve_exact,
    solve_lagrangian,
)
from lightning_attnbal.core import (
    FROZEN,
    FULL,
    InfeasibleBudgetError,
    Menu,
    Option,
    Problem,
)

ONE_UNIT = Problem((Menu("only", (Option(level=FULL, cost=1, value=1.0),)),))
pytestmark = pytest.mark.filterwarnings("error")


def check_against_brute_force(solver, problems, mixes, budget, memory, *, exact):
    """Feasibility, limits, bound and, for the exact solver, the value."""
    allowed = [m for m in mixes if memory is None or m[2] <= memory]
    values = [value for cost, value, _ in allowed if cost <= budget]
    if not values:
        with pytest.raises(InfeasibleBudgetError, match="`budget` to be at least") as error:
            solver(problems, budget, memory=memory)
        assert error.value.smallest == pytest.approx(min(m[0] for m in allowed))
        return
    solution = solver(problems, budget, memory=memory)
    figures = [p.evaluate(lv) for p, lv in zip(problems, solution.levels, strict=True)]
    assert solution.cost == sum(f[0] for f in figures) <= budget
    assert solution.value == sum(f[1] for f in figures)
    assert solution.memory == max(f[2] for f in figures)
    assert memory is None or solution.memory <= memory
    assert solution.bound >= max(values) - 1e-9
    if exact:
        assert solution.value == pytest.approx(max(values), abs=1e-9)
        assert solution.gap == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("whole", [False, True], ids=["real costs", "whole costs"])
@pytest.mark.parametrize("with_memory", [False, True], ids=["cost only", "cost and memory"])
@pytest.mark.parametrize("block", range(5))
def test_equals_brute_force(draw, brute_force, block, with_memory, whole):
    for seed in range(30 * block, 30 * block + 30):
        problems, rng = draw(seed, whole=whole)
        mixes = brute_force(problems)
        memory = float(rng.choice([m[2] for m in mixes])) if with_memory else None
        budget = float(rng.choice([m[0] for m in mixes])) * float(rng.choice([0.95, 1.0, 1.05]))
        for solver in (solve_exact, solve_lagrangian):
            exact = solver is solve_exact
            check_against_brute_force(solver, problems, mixes, budget, memory, exact=exact)


@pytest.mark.parametrize("with_memory", [False, True], ids=["cost only", "cost and memory"])
@pytest.mark.parametrize("num_tasks", [2, 3])
def test_tasks_share_one_budget_as_in_brute_force(draw, brute_force, num_tasks, with_memory):
    for seed in range(20):
        problems, rng = draw(seed, num_tasks=num_tasks, max_units=2)
        mixes = brute_force(problems)
        memory = float(rng.choice([m[2] for m in mixes])) if with_memory else None
        budget = float(rng.choice([m[0] for m in mixes]))
        for solver in (solve_exact, solve_lagrangian):
            exact = solver is solve_exact
            check_against_brute_force(solver, problems, mixes, budget, memory, exact=exact)


@pytest.mark.parametrize("whole", [False, True], ids=["real costs", "whole costs"])
def test_deep_problem_is_solved_to_proven_optimality_and_lagrangian_bounds_hold(large, whole):
    problem = large(whole=whole)
    values = []
    for budget in range(30, 700, 60):
        exact = solve_exact(problem, float(budget))
        relaxed = solve_lagrangian(problem, float(budget))
        assert exact.gap == 0.0
        assert relaxed.value <= exact.value + 1e-9
        assert relaxed.bound >= exact.value - 1e-9
        values.append(exact.value)
    assert values == sorted(values)


def test_cut_lists_are_widened_until_the_answer_is_proven(large):
    problem = large(whole=False)
    assert solve_exact(problem, 300.0, resolution=20).value == pytest.approx(
        solve_exact(problem, 300.0, resolution=20000).value
    )


def test_hopelessly_short_lists_still_give_a_true_bound(large):
    problem = large(whole=False, num_units=40)
    optimum = solve_exact(problem, 500.0, resolution=20000).value
    rough = solve_exact(problem, 500.0, resolution=1)
    assert rough.value <= optimum + 1e-9 <= rough.bound + 2e-9


def test_deep_problem_with_memory_keeps_it_and_closes_the_gap(large):
    problem = large(num_units=10)
    free = solve_exact(problem, 200.0)
    tight = solve_exact(problem, 200.0, memory=free.memory - 1)
    assert tight.memory <= free.memory - 1
    assert tight.value <= free.value
    assert tight.gap == 0.0


def test_solve_takes_the_lagrangian_when_the_problem_is_large(large):
    problems = [large(i, 60, task=f"task.{i}", share=1 / 6) for i in range(6)]
    solution = solve(problems, 400.0)
    assert solution.method == "lagrangian"
    assert solution.cost <= 400.0
    assert solution.relative_gap <= 0.01
    assert [plan.task for plan in solution.plans] == [p.task for p in problems]
    assert solve(problems[0], 40.0).method == "exact"


def test_order_of_options_and_of_tasks_is_irrelevant(draw):
    for seed in range(20):
        problems, rng = draw(seed, num_tasks=2, max_units=3)
        turned = [
            Problem(
                tuple(Menu(m.unit, m.options[::-1]) for m in p.menus),
                p.fixed,
                p.task,
                p.share,
                p.fixed_memory,
            )
            for p in reversed(problems)
        ]
        budget = float(rng.uniform(0.3, 1.0)) * frontier(problems)[-1].cost + 10.0
        assert solve(turned, budget).value == pytest.approx(solve(problems, budget).value)


@pytest.mark.parametrize("factor", [1e-6, 3.0, 1e6])
def test_scaling_values_changes_nothing(draw, factor):
    for seed in range(15):
        (problem,), _ = draw(seed)
        points = frontier(problem)
        budget = points[len(points) // 2].cost
        menus = tuple(
            Menu(
                m.unit,
                tuple(
                    Option(
                        level=o.level,
                        cost=o.cost,
                        cost_above=o.cost_above,
                        value=o.value * factor,
                    )
                    for o in m.options
                ),
            )
            for m in problem.menus
        )
        scaled = solve(Problem(menus, problem.fixed), budget)
        assert scaled.levels == solve(problem, budget).levels


def test_full_budget_gives_the_most_valuable_plan(draw, brute_force):
    for seed in range(30):
        problems, _ = draw(seed)
        mixes = brute_force(problems)
        best = max(value for _, value, _ in mixes)
        assert solve(problems, max(m[0] for m in mixes)).value == pytest.approx(best)


@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(seed=st.integers(0, 10**6), fraction=st.floats(0.0, 1.2), resolution=st.integers(1, 50))
def test_never_over_budget_and_monotone(draw, seed, fraction, resolution):
    (problem,), _ = draw(seed, max_units=6)
    points = frontier(problem, resolution=resolution)
    low, high = points[0].cost, points[-1].cost
    budget = low + fraction * (high - low)
    less = solve(problem, low + 0.5 * fraction * (high - low))
    more = solve(problem, budget)
    assert more.cost <= budget
    assert solve(problem, budget, resolution=resolution).cost <= budget
    assert less.value <= more.value + 1e-9
    assert solve_lagrangian(problem, budget).cost <= budget


def test_infeasible_budget_names_the_smallest_one(large):
    problem = large(num_units=4)
    smallest = frontier(problem)[0].cost
    with pytest.raises(InfeasibleBudgetError, match=rf"at least {smallest:g}") as error:
        solve(problem, smallest - 0.5)
    assert error.value.smallest == smallest
    assert solve(problem, smallest).cost == smallest


def test_infeasible_memory_names_it(large):
    with pytest.raises(InfeasibleMemoryError, match=r"`memory` to be at least 9 bytes") as error:
        solve(large(num_units=4), 100.0, memory=8.0)
    assert error.value.smallest == 9.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"problem": []}, r"`problem` to be one or more tasks"),
        ({"problem": [ONE_UNIT, ONE_UNIT]}, r"`problem` to be one or more tasks"),
        ({"budget": -1.0}, r"`budget` to be in \[0, inf\)"),
        ({"budget": float("nan")}, r"`budget` to be in \[0, inf\)"),
        ({"memory": -1.0}, r"`memory` to be in \[0, inf\)"),
        ({"resolution": 0}, r"`resolution` to be in \[1, inf\)"),
        (
            {"problem": Problem((Menu("only", (Option(level=FROZEN, cost=1),)),))},
            r"task 'main' to allow a valid plan",
        ),
    ],
    ids=["no task", "same name", "negative budget", "nan", "memory", "resolution", "no plan"],
)
def test_wrong_arguments(large, arguments, message):
    with pytest.raises(ValueError, match=message):
        solve(**({"problem": large(), "budget": 100.0} | arguments))


def test_plan_of_several_tasks_is_refused(large):
    problems = [large(i, 3, task=f"task.{i}", share=0.5) for i in range(2)]
    with pytest.raises(ValueError, match="one task, but got 2; use `plans`"):
        _ = solve(problems, 100.0).plan


def test_free_plans_need_no_budget():
    options = (Option(level=FULL, cost=0, value=2.0), Option(level=FROZEN, cost=0))
    solution = solve(Problem((Menu("a", options), Menu("b", options))), 0.0)
    assert (solution.cost, solution.value, solution.gap) == (0.0, 4.0, 0.0)
