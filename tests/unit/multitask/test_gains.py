"""From forecasts to gains, and from a few estimates to contributions."""

import math
from itertools import product

import numpy as np
import pytest

from lightning_attnbal.allocate import CurvePrior, Forecast, Progress, Segment
from lightning_attnbal.core import FROZEN, FULL, Menu, Option, Problem
from lightning_attnbal.measure import Contribution
from lightning_attnbal.multitask import ForecastGain, Outlook, help_from_others, task_worth

UNITS = ("low", "high", "head")


def make_problem():
    options = (
        Option(level=FROZEN, cost=1, cost_above=1),
        Option(level=FULL, cost=2, cost_above=1, value=1),
    )
    return Problem(tuple(Menu(unit, options) for unit in UNITS))


def falling(steps=20):
    losses = [2.0 / (1 + 0.1 * i) for i in range(steps)]
    segments = tuple(Segment(trained=UNITS, steps=1, loss=loss) for loss in losses)
    return Progress(segments=segments)


def outlook(**changes):
    return Outlook(**{"progress": falling(), "epoch_steps": 50, **changes})


STEPS = np.array([0.0, 5.0, 20.0, 80.0, 320.0])


def test_gain_grows_with_steps_and_with_what_trains():
    gain = ForecastGain(make_problem(), outlook())
    deep, shallow = gain((FULL, FULL, FULL), STEPS), gain((FROZEN, FROZEN, FULL), STEPS)
    assert (np.diff(deep) > 0).all()
    assert (deep[1:] > shallow[1:]).all()
    assert deep[0] == pytest.approx(0.0)


def test_scale_divides_the_forecast():
    one, four = (ForecastGain(make_problem(), outlook(scale=s)) for s in (1.0, 4.0))
    levels = (FULL, FULL, FULL)
    assert four(levels, STEPS)[-1] == pytest.approx(one(levels, STEPS)[-1] / 4, rel=0.02)


def test_coming_help_is_worth_own_steps():
    levels = (FULL, FULL, FULL)
    alone = ForecastGain(make_problem(), outlook())
    helped = ForecastGain(make_problem(), outlook()).beside(15.0)
    assert helped(levels, np.array([5.0]))[0] == pytest.approx(
        alone(levels, np.array([20.0]))[0], rel=0.05
    )


def test_harm_beyond_the_own_steps_costs_what_as_many_steps_gain():
    levels = (FULL, FULL, FULL)
    alone = ForecastGain(make_problem(), outlook())
    harmed = alone.beside(-50.0)(levels, np.array([10.0]))[0]
    assert harmed == pytest.approx(-alone(levels, np.array([40.0]))[0], rel=0.05)


@pytest.mark.parametrize("coming", [-30.0, 0.0, 30.0])
def test_own_steps_on_top_of_the_others_begin_at_nothing(coming):
    levels = (FULL, FULL, FULL)
    alone = ForecastGain(make_problem(), outlook())
    beside, on_top = alone.beside(coming), alone.beside(coming, is_on_top=True)
    assert on_top(levels, STEPS)[0] == 0.0
    assert on_top(levels, STEPS) == pytest.approx(
        beside(levels, STEPS) - beside(levels, STEPS)[0], rel=0.02, abs=1e-3
    )


def test_credit_is_added_for_each_step_of_each_unit_that_trains():
    alone = ForecastGain(make_problem(), outlook())
    credited = alone.beside(0.0, {"low": 0.5, "head": 0.25})
    for levels, more in [((FULL, FULL, FULL), 0.75), ((FROZEN, FULL, FULL), 0.25)]:
        assert credited(levels, STEPS) - alone(levels, STEPS) == pytest.approx(more * STEPS)
        assert credited.without_credit()(levels, STEPS) == pytest.approx(alone(levels, STEPS))


def test_past_help_makes_later_own_steps_worth_less_without_it():
    levels = (FULL, FULL, FULL)
    alone = ForecastGain(make_problem(), outlook())
    spoilt = ForecastGain(make_problem(), outlook(helped=20.0))
    assert spoilt(levels, np.array([40.0]))[0] == pytest.approx(
        alone(levels, np.array([20.0]))[0], rel=0.05
    )


def test_a_plan_that_freezes_a_new_head_gains_nothing():
    progress = Progress(segments=falling().segments, fresh=frozenset({"head"}))
    gain = ForecastGain(make_problem(), outlook(progress=progress))
    assert gain((FULL, FULL, FROZEN), STEPS).tolist() == [-math.inf] * len(STEPS)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"epoch_steps": 0}, "epoch_steps"),
        ({"scale": 0.0}, "scale"),
        ({"helped": math.nan}, "helped"),
    ],
    ids=["epoch", "scale", "help"],
)
def test_outlook_refuses_numbers_out_of_range(changes, words):
    with pytest.raises(ValueError, match=f"Expected `{words}`"):
        outlook(**changes)


def test_help_ignores_what_is_unknown_and_the_task_itself():
    equivalents = {("a", "a"): {"low": 1.0}, ("b", "a"): {"low": 0.5}}
    assert help_from_others("a", {"a": 100, "b": 10, "c": 7}, equivalents) == 5.0


def pairs(count):
    """Task a learns in its low unit, task b in its head; both help themselves only."""

    def seen(low, head):
        return {"low": Contribution(low, 0.1, count), "head": Contribution(head, 0.1, count)}

    return {("a", "a"): seen(9.0, 1.0), ("b", "b"): seen(1.0, 9.0)}


WEIGHTS = {"a": 1.0, "b": 1.0}


def test_many_estimates_speak_for_themselves():
    found = task_worth(pairs(100_000), "a", WEIGHTS)
    assert found["low"] / found["head"] == pytest.approx(9.0, rel=1e-2)


def test_few_estimates_say_what_all_tasks_together_say():
    found = task_worth(pairs(0), "a", WEIGHTS)
    assert found["low"] == pytest.approx(found["head"])
    assert sum(found.values()) == pytest.approx(10.0)


def test_weights_count_and_names_do_not():
    swapped = {("b", "b"): pairs(8)["a", "a"], ("a", "a"): pairs(8)["b", "b"]}
    assert task_worth(swapped, "b", WEIGHTS) == task_worth(pairs(8), "a", WEIGHTS)
    heavier = task_worth(pairs(8), "a", {"a": 2.0, "b": 1.0})
    assert sum(heavier.values()) == pytest.approx(20.0)


def test_a_task_that_only_harms_takes_the_common_profile():
    harmful = {**pairs(50), ("a", "a"): {"low": Contribution(-3.0, 0.1, 50)}}
    found = task_worth(harmful, "a", WEIGHTS)
    assert found["head"] > found["low"] >= 0


def uneven():
    """A run in which units trained for different lengths, with noise."""
    rng = np.random.default_rng(0)
    segments = [
        Segment(trained=UNITS[k // 10 :], steps=2, loss=2 / (1 + k) + 0.1 * rng.random())
        for k in range(20)
    ]
    return Progress(segments=tuple(segments))


@pytest.mark.parametrize("progress", [Progress(), falling(), uneven()])
@pytest.mark.parametrize("prior", [CurvePrior(), CurvePrior(half=0.0, own=0.9, passes=2.0)])
def test_many_plans_at_once_are_forecast_as_one_by_one(progress, prior):
    forecast = Forecast(make_problem(), progress, 30, prior)
    trained = np.array(list(product([False, True], repeat=3)))
    found = forecast.means(trained, STEPS)
    for plan, losses in zip(trained, found, strict=True):
        units = {unit for unit, trains in zip(UNITS, plan, strict=True) if trains}
        assert losses == pytest.approx([forecast(units, n).mean for n in STEPS], rel=1e-12)


def test_gains_of_many_plans_are_those_of_each():
    problem = make_problem()
    progress = Progress(segments=uneven().segments, fresh=frozenset({"head"}))
    gain = ForecastGain(problem, outlook(progress=progress, helped=3.0, scale=2.0))
    gain = gain.beside(4.0, {"high": 0.1}, is_on_top=True)
    plans = [plan for plan in product([FROZEN, FULL], repeat=3) if FULL in plan]
    values = np.array([problem.evaluate(plan)[1] for plan in plans])
    found = gain.table(plans, values, STEPS)
    assert found.shape == (7, len(STEPS))
    for plan, gains in zip(plans, found, strict=True):
        assert gains == pytest.approx(gain(plan, STEPS), rel=1e-9)
