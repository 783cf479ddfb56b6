"""Which plan the forecast picks, when it stays, and when it hands budget back."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import permutations, product

import numpy as np
import pytest

from lightning_attnbal.allocate import (
    CurvePrior,
    Forecast,
    ForecastAllocator,
    Limits,
    Progress,
    Segment,
)
from lightning_attnbal.core import (
    CACHED,
    FROZEN,
    FULL,
    LOCAL,
    InfeasibleBudgetError,
    Menu,
    Option,
    Plan,
    Problem,
)
from tests.unit.allocate.learners import EPOCH, layers, ran

ENDLESS = CurvePrior(passes=1e9)


def plan_of(problem: Problem, trained: set[str]) -> Plan:
    return Plan({m.unit: FULL if m.unit in trained else FROZEN for m in problem.menus})


def outcome_of(problem: Problem, plan: Plan, limits: Limits, progress: Progress, prior: CurvePrior):
    cost, _, _ = problem.evaluate(tuple(plan.values()))
    return Forecast(problem, progress, EPOCH, prior)(plan.trained, limits.steps(cost))


@pytest.mark.parametrize("own", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("epochs", [0.3, 3.0])
def test_no_plan_is_forecast_better_than_the_one_chosen(own, epochs):
    rng = np.random.default_rng(3)
    prior = CurvePrior(own=own, passes=1e9)
    for _ in range(6):
        problem = layers(*rng.uniform(0.1, 3, 4))
        limits = Limits(remaining=epochs * EPOCH * 5, epoch_steps=EPOCH)
        names = [menu.unit for menu in problem.menus]
        every = [
            plan_of(problem, {n for n, trains in zip(names, chosen, strict=True) if trains})
            for chosen in product([False, True], repeat=4)
            if any(chosen)
        ]
        means = [outcome_of(problem, plan, limits, Progress(), prior).mean for plan in every]
        plan = ForecastAllocator(prior=prior)(problem, limits)
        assert outcome_of(problem, plan, limits, Progress(), prior).mean == pytest.approx(
            min(means), rel=1e-12
        )
        assert plan.forecast[0] == pytest.approx(min(means), rel=1e-12)


def test_short_runs_are_shallow_and_long_ones_deep():
    problem = layers(1.0, 1.0, 1.0, 1.0)
    allocate = ForecastAllocator(prior=ENDLESS)
    limits = [Limits(remaining=n, epoch_steps=EPOCH) for n in (20, 500, 50_000, 5_000_000)]
    depths = [len(allocate(problem, limit).trained) for limit in limits]
    assert depths == sorted(depths)
    assert depths[0] < depths[-1] == 4


@pytest.mark.parametrize("values", [(1.0, 1.0, -5.0), (0.0, 0.0, 1.0), (0.0, 0.0, 0.0)], ids=str)
def test_full_training_is_a_candidate_even_where_the_frontier_lacks_it(values):
    problem = layers(*values)
    names = frozenset(menu.unit for menu in problem.menus)
    limits = Limits(remaining=500, epoch_steps=EPOCH)
    plan = ForecastAllocator()(problem, limits, progress=Progress(fresh=names))
    assert set(plan.trained) == names
    assert "no gain expected, full training" in plan.method


@pytest.mark.parametrize("own", [0.0, 0.05, 1.0])
@pytest.mark.parametrize("remaining", [30, 300, 3000, 30_000])
@pytest.mark.parametrize("max_steps", [None, 60])
def test_no_gain_is_said_exactly_when_everything_trains(own, remaining, max_steps):
    problem = layers(1.0, 2.0, 4.0)
    limits = Limits(remaining=remaining, epoch_steps=EPOCH, max_steps=max_steps)
    plan = ForecastAllocator(prior=CurvePrior(own=own, passes=1e9))(problem, limits)
    then = "; then " in plan.method  # the words are about what follows the first steps
    assert ("no gain expected" in plan.method) == (len(plan.trained) == 3 and not then)
    assert plan.method.startswith("forecast: ")


def test_training_everything_at_a_cheaper_level_is_not_called_full_training():
    problem = layers(1.0, 1.0, 1.0)
    menus = [
        replace(m, options=(*m.options, Option(level=LOCAL, cost=1.1, value=o.value)))
        for m in problem.menus
        for o in m.options
        if o.level == FULL
    ]
    limits = Limits(remaining=200, epoch_steps=EPOCH)
    plan = ForecastAllocator()(Problem(tuple(menus), fixed=0.5), limits)
    assert LOCAL in plan.values()
    assert len(plan.trained) == 3
    assert "no gain expected" not in plan.method


@pytest.mark.parametrize("is_current_without", [False, True], ids=["first plan", "frozen so far"])
@pytest.mark.parametrize("remaining", [20, 500, 50_000])
def test_units_that_were_never_trained_are_trained(remaining, is_current_without):
    problem = layers(0.001, 1.0, 1.0, 9.0)
    progress = ran("layer.3", num=20, fresh=frozenset({"layer.1"}))
    current = plan_of(problem, {"layer.3"}) if is_current_without else None
    limits = Limits(remaining=remaining, epoch_steps=EPOCH)
    plan = ForecastAllocator(hysteresis=1e9)(problem, limits, current, progress)
    assert "layer.1" in plan.trained


def test_a_fresh_unit_that_is_too_dear_does_not_end_the_run():
    problem = layers(1.0, 1.0, 1.0)
    progress = Progress(fresh=frozenset({"layer.0"}))
    plan = ForecastAllocator()(problem, Limits(remaining=5.0, epoch_steps=EPOCH), None, progress)
    assert "layer.0" not in plan.trained


@pytest.mark.parametrize("fits", [True, False])
def test_losses_matter_only_to_an_allocator_that_fits(fits):
    problem = layers(1.0, 2.0, 4.0)
    limits = Limits(remaining=400, epoch_steps=EPOCH)
    allocate = ForecastAllocator(fits=fits)
    plans = [
        allocate(problem, limits, None, ran("layer.2", tau=tau, num=20)) for tau in (2.0, 500.0)
    ]
    assert (plans[0].forecast == plans[1].forecast) is not fits


@pytest.mark.parametrize(
    ("num", "settled"),
    [(4, 0.2), (20, 1.0), (30, 1.0)],
    ids=["in the first epoch", "after it", "later"],
)
def test_the_plan_in_force_stays_within_the_error_and_goes_beyond_it(num, settled):
    problem = layers(1.0, 1.0, 1.0, 1.0)
    limits, progress = Limits(remaining=1000, epoch_steps=EPOCH), ran("layer.3", num=num)
    best = ForecastAllocator(hysteresis=0.0, prior=ENDLESS)(problem, limits, None, progress)
    names = {menu.unit for menu in problem.menus}
    other = plan_of(problem, names if len(best.trained) < 4 else {"layer.3"})
    worse, error = outcome_of(problem, other, limits, progress, ENDLESS).above(
        outcome_of(problem, best, limits, progress, ENDLESS)
    )
    assert worse > 0
    for factor, kept in ((1.01, other), (0.99, best)):
        margin = factor * worse / error / settled
        allocate = ForecastAllocator(hysteresis=margin, thaw_margin=0.0, prior=ENDLESS)
        assert allocate(problem, limits, other, progress).same_levels(kept)


@pytest.mark.parametrize("num", [4, 20], ids=["first epoch", "later"])
def test_units_that_rest_are_thawed_for_more_than_the_margin(num):
    problem, progress = layers(1.0, 1.0, 1.0, 1.0), ran("layer.3", num=num, tau=500.0)
    limits, other = Limits(remaining=1000, epoch_steps=EPOCH), plan_of(problem, {"layer.3"})
    best = ForecastAllocator(thaw_margin=0.0, hysteresis=0.0)(problem, limits, other, progress)
    assert set(other.trained) < set(best.trained)
    prior = CurvePrior()
    worse, _ = outcome_of(problem, other, limits, progress, prior).above(
        outcome_of(problem, best, limits, progress, prior)
    )
    first = progress.segments[0].loss
    for factor, kept in ((1.01, other), (0.99, best)):
        margin = factor * worse / first
        allocate = ForecastAllocator(hysteresis=0.0, thaw_margin=margin)
        assert allocate(problem, limits, other, progress).same_levels(kept)


def test_no_margin_holds_back_who_trains_less():
    problem, progress = layers(0.01, 0.01, 0.01, 1.0), ran("layer.3", num=20)
    limits = Limits(remaining=100, epoch_steps=EPOCH)
    now = plan_of(problem, {menu.unit for menu in problem.menus})
    plan = ForecastAllocator(thaw_margin=1e9, hysteresis=0.0)(problem, limits, now, progress)
    assert set(plan.trained) < set(now.trained)


def test_what_rests_may_be_cached_at_any_time():
    resting = (Option(level=FROZEN, cost=1.0), Option(level=CACHED, cost=0.0, once=50.0))
    menus = (
        Menu("low", (*resting, Option(level=FULL, cost=2.0, value=0.01))),
        Menu("high", (Option(level=FULL, cost=0.7, cost_above=0.3, value=1.0),)),
    )
    problem = Problem(menus)
    progress = Progress(segments=(Segment(trained=("high",), steps=EPOCH, loss=1.0),))
    limits = Limits(remaining=400.0, epoch_steps=EPOCH)
    current = plan_of(problem, {"high"})
    plan = ForecastAllocator(hysteresis=1e9, prior=ENDLESS)(problem, limits, current, progress)
    assert list(plan.values()) == [CACHED, FULL]


def test_same_arguments_give_the_same_plan_whatever_the_order_of_units():
    problem = layers(1.0, 4.0, 2.0, above=0.0)
    limits = Limits(remaining=400, epoch_steps=EPOCH)
    plans = [
        ForecastAllocator()(Problem(menus, fixed=0.5), limits, None, ran("layer.1"))
        for menus in [*permutations(problem.menus), problem.menus]
    ]
    assert plans[0] == plans[-1]
    assert {frozenset(plan.trained) for plan in plans} == {frozenset(plans[0].trained)}


def test_scaling_values_changes_no_level():
    limits = Limits(remaining=400, epoch_steps=EPOCH)
    one, other = (
        ForecastAllocator()(layers(*(factor * v for v in (1.0, 3.0, 2.0))), limits)
        for factor in (1.0, 1024.0)
    )
    assert one.same_levels(other)
    assert one.forecast == other.forecast


@pytest.mark.parametrize("remaining", [1.2, 1.6, 2.2, 6.0])
def test_filling_a_cache_never_makes_an_affordable_run_infeasible(remaining):
    resting = (Option(level=FROZEN, cost=0.5), Option(level=CACHED, cost=0.0, once=90.0))
    menus = (
        Menu("low", (*resting, Option(level=FULL, cost=1.0, value=1.0))),
        Menu("high", (Option(level=FULL, cost=0.7, cost_above=0.3, value=1.0),)),
    )
    limits = Limits(remaining=remaining, epoch_steps=EPOCH)
    plan = ForecastAllocator()(Problem(menus), limits)
    once = Problem(menus).one_off(tuple(plan.values()))
    assert limits.total(plan.num_steps, plan.cost_per_step, once) <= remaining
    assert plan.num_steps >= 1


def test_a_budget_below_one_step_is_named():
    with pytest.raises(InfeasibleBudgetError, match=r"at least 3\.5 GFLOP"):
        ForecastAllocator()(layers(1, 1), Limits(remaining=2.0, cost_unit="GFLOP"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"thaw_margin": -1.0}, r"`thaw_margin` to be in \[0, inf\), but got -1"),
        ({"hysteresis": -1.0}, r"`hysteresis` to be in \[0, inf\), but got -1"),
        ({"hysteresis": math.nan}, r"`hysteresis` to be in \[0, inf\), but got nan"),
        ({"resolution": 0}, r"`resolution` to be in \[1, inf\), but got 0"),
    ],
)
def test_wrong_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        ForecastAllocator(**settings)
