"""The contract every allocator keeps, and what is special about each."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from lightning_attnbal.allocate import (
    Allocator,
    Choice,
    ForecastAllocator,
    FrontierAllocator,
    FullAllocator,
    InfeasibleMemoryError,
    LastKAllocator,
    Limits,
    RandomAllocator,
    UniformAllocator,
    frontier,
)
from lightning_attnbal.core import (
    CACHED,
    FROZEN,
    FULL,
    InfeasibleBudgetError,
    Menu,
    Option,
    Plan,
    Problem,
    lora,
)

ALLOCATORS: list[Allocator] = [
    ForecastAllocator(),
    FrontierAllocator(),
    FrontierAllocator(substitution=1.0, hysteresis=0.0, resolution=50),
    FullAllocator(),
    LastKAllocator(2),
    UniformAllocator(),
    RandomAllocator(seed=7),
]


def over(allocators):
    def name(allocator):
        return type(allocator).__name__.removesuffix("Allocator").lower()

    return pytest.mark.parametrize("allocator", allocators, ids=name)


every_allocator = over(ALLOCATORS)


def blocks(values=(4.0, 1.0, 2.0, 3.0)):
    """A stack of equal blocks that differ in value only, nearest the input first."""
    return Problem(
        tuple(
            Menu(
                f"layer.{i}",
                (
                    Option(level=CACHED, cost=0.1, memory=1),
                    Option(level=FROZEN, cost=1, cost_above=1, memory=1, memory_above=2),
                    Option(level=lora(4), cost=1.5, cost_above=1, value=0.6 * value, memory=4),
                    Option(level=FULL, cost=2, cost_above=1, value=value, memory=8),
                ),
            )
            for i, value in enumerate(values)
        ),
        fixed=0.5,
        task="reviews",
    )


@every_allocator
def test_plans_are_valid_priced_and_affordable(allocator, random_problem):
    for seed in range(12):
        problem = random_problem(np.random.default_rng(seed), 1 + seed % 5)
        dearest = max(sum(o.cost + o.cost_above for o in m.options) for m in problem.menus)
        limits = Limits(remaining=40 * dearest * len(problem.menus) + 40, max_steps=5 + seed)
        plan = allocator(problem, limits)
        levels = tuple(plan.values())
        cost, value, _ = problem.evaluate(levels)
        assert list(plan) == [menu.unit for menu in problem.menus]
        assert (plan.cost_per_step, plan.value, plan.task) == (cost, value, "main")
        assert 1 <= plan.num_steps <= limits.max_steps
        assert plan.num_steps * cost <= limits.remaining
        assert plan.bound >= value
        assert plan.shadow_price >= 0
        assert set(plan.reasons) == set(plan)


@every_allocator
def test_same_arguments_give_the_same_plan(allocator):
    limits = Limits(remaining=100.0, max_steps=20)
    assert allocator(blocks(), limits) == allocator(blocks(), limits)


@every_allocator
def test_plan_survives_its_dictionary(allocator):
    plan = allocator(blocks(), Limits(remaining=100.0, max_steps=20))
    assert Plan.from_dict(plan.to_dict()) == plan


@every_allocator
def test_less_than_one_step_is_infeasible(allocator):
    with pytest.raises(InfeasibleBudgetError, match=r"at least .* GFLOP") as error:
        allocator(blocks(), Limits(remaining=0.5, cost_unit="GFLOP"))
    assert error.value.smallest > 0.5


@every_allocator
def test_too_little_memory_is_named(allocator):
    with pytest.raises(InfeasibleMemoryError, match="`memory` to be at least"):
        allocator(blocks(), Limits(remaining=100.0, memory=3.0))


@over([a for a in ALLOCATORS if not isinstance(a, RandomAllocator)])  # draws from the limits
def test_scaling_costs_and_budget_changes_no_level(allocator):
    menus = tuple(
        Menu(
            m.unit,
            tuple(replace(o, cost=8 * o.cost, cost_above=8 * o.cost_above) for o in m.options),
        )
        for m in blocks().menus
    )
    scaled = replace(blocks(), menus=menus, fixed=4.0)
    plan = allocator(blocks(), Limits(remaining=64.0, max_steps=20))
    assert allocator(scaled, Limits(remaining=512.0, max_steps=20)).same_levels(plan)


def test_frontier_maximises_value_to_the_power_times_steps(random_problem):
    allocator = FrontierAllocator(substitution=0.5)
    for seed in range(20):
        problem = random_problem(np.random.default_rng(seed), 4)
        points = frontier(problem)
        limits = Limits(remaining=30 * points[-1].cost + 1)
        scores = [math.sqrt(max(0.0, p.value)) * limits.remaining / p.cost for p in points]
        plan = allocator(problem, limits)
        steps = limits.remaining / plan.cost_per_step
        assert math.sqrt(max(0.0, plan.value)) * steps == pytest.approx(max(scores))


@pytest.mark.parametrize("hysteresis", [0.1, 10.0])
def test_frontier_uses_the_budget_up_within_the_steps_there_are(random_problem, hysteresis):
    allocator = FrontierAllocator(hysteresis=hysteresis)
    for seed in range(20):
        problem = random_problem(np.random.default_rng(seed), 4)
        dearest = frontier(problem)[-1].cost
        budget = remaining = 0.6 * 1000 * dearest
        steps, plan = 1000, frontier(problem)[0].plan
        while steps and remaining > dearest:
            plan = allocator(problem, Limits(remaining=remaining, max_steps=steps), plan)
            steps -= plan.num_steps
            remaining -= plan.num_steps * plan.cost_per_step
        assert 0 <= remaining <= 0.005 * budget


def test_few_steps_left_deepen_the_plan():
    allocator = FrontierAllocator()
    open_ended = allocator(blocks(), Limits(remaining=60.0))
    capped = allocator(blocks(), Limits(remaining=60.0, max_steps=5))
    assert capped.cost_per_step > open_ended.cost_per_step
    assert capped.trained == ("layer.0", "layer.1", "layer.2", "layer.3")


@pytest.mark.parametrize("values", [(0.0, 0.0, 0.0, 0.0), (-1.0, -2.0, -1.0, -3.0)])
def test_no_value_anywhere_gives_the_most_valuable_plan(values):
    plan = FrontierAllocator()(blocks(values), Limits(remaining=60.0))
    assert plan.value == frontier(blocks(values))[-1].value


def test_hysteresis_keeps_the_current_plan_until_clearly_beaten():
    problem, limits = blocks(), Limits(remaining=60.0)
    best = FrontierAllocator(hysteresis=0.0)(problem, limits)
    near = Plan(
        dict.fromkeys(problem_units(problem), FULL) | {"layer.0": CACHED, "layer.1": CACHED}
    )
    score = FrontierAllocator().score
    cost, value, _ = problem.evaluate(tuple(near.values()))
    lead = score(best.cost_per_step, best.value, limits) / score(cost, value, limits) - 1
    assert lead > 0
    assert FrontierAllocator(hysteresis=lead * 1.01)(problem, limits, near).same_levels(near)
    assert FrontierAllocator(hysteresis=lead * 0.99)(problem, limits, near).same_levels(best)


def problem_units(problem):
    return [menu.unit for menu in problem.menus]


@pytest.mark.parametrize(
    "current",
    [
        Plan({"other": "full"}),
        Plan({f"layer.{i}": "frozen" for i in range(4)}),
        Plan({f"layer.{i}": "lora64" for i in range(4)}),
        Plan({f"layer.{i}": "full" for i in range(4)}),
    ],
    ids=["other units", "nothing trained", "not on the menu", "too dear"],
)
def test_impossible_current_plan_is_left(current):
    allocator = FrontierAllocator(hysteresis=1e9)
    limits = Limits(remaining=9.0)
    assert allocator(blocks(), limits, current).same_levels(allocator(blocks(), limits))


def test_full_trains_everything_for_fewer_steps():
    plan = FullAllocator()(blocks(), Limits(remaining=60.0))
    assert set(plan.values()) == {FULL}
    assert plan.num_steps == 60 // plan.cost_per_step


@pytest.mark.parametrize("k", [1, 3, 99])
def test_last_k(k):
    plan = LastKAllocator(k)(blocks(), Limits(remaining=60.0))
    assert plan.trained == tuple(f"layer.{i}" for i in range(max(0, 4 - k), 4))


@pytest.mark.parametrize(
    ("max_steps", "trained"),
    [
        (None, ["layer.0", "layer.1", "layer.2", "layer.3"]),
        (8, ["layer.1", "layer.3"]),
        (12, ["layer.3"]),
        (60, ["layer.3"]),
    ],
)
def test_uniform_trains_as_many_as_fit(max_steps, trained):
    plan = UniformAllocator()(blocks(), Limits(remaining=72.0, max_steps=max_steps))
    assert list(plan.trained) == trained


def test_random_differs_by_seed_and_stays_within_the_cap():
    limits = Limits(remaining=80.0, max_steps=10, memory=25.0)
    plans = [RandomAllocator(seed)(blocks(), limits) for seed in range(30)]
    assert len(set(plans)) > 5
    assert max(plan.cost_per_step for plan in plans) <= 8.0
    memories = [blocks().evaluate(tuple(plan.values()))[2] for plan in plans]
    assert max(memories) <= 25.0


def test_reasons_give_rates_against_the_price():
    limits = Limits(remaining=6e9, cost_unit="GFLOP", cost_scale=1e9)
    options = (
        Option(level=FROZEN, cost=1e9, cost_above=1e9),
        Option(level=FULL, cost=2e9, cost_above=1e9, value=3.0),
    )
    problem = Problem((Menu("low", options), Menu("high", options)))
    plan = LastKAllocator(1)(problem, limits)
    assert plan.reasons["high"] == "full: the only unit that trains"
    assert plan.reasons["low"].startswith("frozen: full would bring 1.5 per GFLOP against λ = ")
    both = FullAllocator()(problem, limits)
    assert both.reasons["high"].startswith("full: 3 per GFLOP against λ = ")
    assert both.reasons["low"].startswith("full: 1.5 per GFLOP against λ = ")


def test_an_invalid_choice_is_refused():
    class Broken(Allocator):
        def allocate(self, problem, limits, current, progress):
            return Choice(levels=(FROZEN,) * len(problem.menus), method="broken")

    with pytest.raises(ValueError, match="a valid plan, but nothing is trained"):
        Broken()(blocks(), Limits(remaining=60.0))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Limits(remaining=-1.0), r"`remaining` to be in \[0, inf\)"),
        (lambda: Limits(remaining=1.0, max_steps=0), r"`max_steps` to be in \[1, inf\)"),
        (lambda: Limits(remaining=1.0, memory=-1.0), r"`memory` to be in \[0, inf\)"),
        (lambda: Limits(remaining=1.0, cost_scale=0.0), r"`cost_scale` to be in \(0, inf\)"),
        (lambda: FrontierAllocator(substitution=0.0), r"`substitution` to be in \(0, 1\]"),
        (lambda: FrontierAllocator(hysteresis=-0.1), r"`hysteresis` to be in \[0, inf\)"),
        (lambda: FrontierAllocator(resolution=0), r"`resolution` to be in \[1, inf\)"),
        (lambda: LastKAllocator(0), r"`k` to be in \[1, inf\)"),
        (lambda: RandomAllocator(-1), r"`seed` to be in \[0, inf\)"),
    ],
)
def test_wrong_settings(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_unit_that_can_do_nothing_asked_is_named():
    menus = (Menu("odd", (Option(level=CACHED, cost=0),)), *blocks().menus)
    plan = LastKAllocator(1)(Problem(menus), Limits(remaining=60.0))
    assert plan["odd"] == CACHED
    with pytest.raises(ValueError, match="unit 'odd' to let it be at rest"):
        FullAllocator()(Problem((*blocks().menus, menus[0])), Limits(remaining=60.0))
