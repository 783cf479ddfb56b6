"""Learning curves: what every forecast obeys."""

from __future__ import annotations

import math
from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad

from lightning_attnbal.allocate import CurvePrior, Forecast, Outcome, Progress, Segment
from lightning_attnbal.core import Problem
from tests.unit.allocate.learners import EPOCH, FAR, OPEN, STEPS_ONLY, problem_of

values = st.floats(0, 10)
losses = st.one_of(st.floats(-5, 5), st.just(math.nan), st.just(0.0))


@st.composite
def runs(draw, num_units: int) -> Progress:
    names = [str(i) for i in range(num_units)]
    some = st.sets(st.sampled_from(names), min_size=1)
    segments = st.builds(Segment, trained=some, steps=st.floats(0.5, 60), loss=losses)
    fresh = draw(st.frozensets(st.sampled_from(names)))
    return Progress(segments=tuple(draw(st.lists(segments, max_size=6))), fresh=fresh)


@st.composite
def forecasts(draw, prior: CurvePrior = OPEN) -> tuple[Forecast, list[str]]:
    worth = draw(st.lists(values, min_size=1, max_size=5))
    run = draw(runs(len(worth)))
    return Forecast(problem_of(*worth), run, EPOCH, prior), [str(i) for i in range(len(worth))]


@settings(max_examples=40, deadline=None)
@given(forecasts(), st.data())
def test_every_curve_falls_with_steps_to_its_floor(case, data):
    forecast, names = case
    trained = data.draw(st.sets(st.sampled_from(names)))
    few, more = sorted(data.draw(st.tuples(st.floats(0, 1e4), st.floats(0, 1e4))))
    floor = forecast(names, FAR).losses
    scale = 1e-9 * (1 + np.abs(forecast([], 0).losses).max())
    assert (forecast(trained, more).losses <= forecast(trained, few).losses + scale).all()
    assert (forecast(trained, more).losses >= floor - scale).all()


@settings(max_examples=40, deadline=None)
@given(forecasts(), st.data())
def test_training_more_units_at_equal_steps_is_never_forecast_worse(case, data):
    forecast, names = case
    few = data.draw(st.sets(st.sampled_from(names)))
    more = few | data.draw(st.sets(st.sampled_from(names)))
    steps = data.draw(st.floats(0, 1e4))
    scale = 1e-9 * (1 + np.abs(forecast([], 0).losses).max())
    assert (forecast(more, steps).losses <= forecast(few, steps).losses + scale).all()


@settings(max_examples=40, deadline=None)
@given(forecasts(CurvePrior()), st.data())
def test_probabilities_are_probabilities(case, data):
    forecast, names = case
    outcome = forecast(data.draw(st.sets(st.sampled_from(names))), 50)
    assert outcome.weights.sum() == pytest.approx(1)
    assert (outcome.weights >= 0).all()
    assert math.isfinite(outcome.mean)
    assert outcome.std >= 0


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(0.1, 10), min_size=2, max_size=5), st.floats(1, 1e3), st.data())
def test_without_an_own_part_only_steps_count(worth, steps, data):
    forecast = Forecast(problem_of(*worth), Progress(), EPOCH, STEPS_ONLY)
    names = [str(i) for i in range(len(worth))]
    trained = data.draw(st.sets(st.sampled_from(names), min_size=1))
    np.testing.assert_allclose(forecast(trained, steps).losses, forecast(names, steps).losses)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(0.1, 10), min_size=2, max_size=5), st.floats(1, 1e3), st.data())
def test_with_nothing_but_own_parts_of_order_one_contributions_add_up(worth, steps, data):
    names = set(map(str, range(len(worth))))
    prior = CurvePrior(own=1.0, order=1.0, passes=1e12)
    forecast = Forecast(problem_of(*worth), Progress(), EPOCH, prior)
    start = forecast([], 0).losses
    some = data.draw(st.sets(st.sampled_from(sorted(names))))
    one, other, both = (start - forecast(t, steps).losses for t in (some, names - some, names))
    adds_up = np.isclose(one + other, both, atol=1e-12)
    assert forecast(names, steps).weights[adds_up].sum() > 0.7  # ρ is uncertain, downwards too


def test_the_larger_the_own_part_the_more_depth_counts():
    def gap(own: float) -> float:
        prior = CurvePrior(own=own, half=0, slowness=1)
        forecast = Forecast(problem_of(1, 1), Progress(), EPOCH, prior)
        return forecast({"0"}, 50).mean - forecast({"0", "1"}, 50).mean

    gaps = [gap(own) for own in (0.0, 0.1, 0.3, 1.0)]
    assert gaps[0] == 0
    assert gaps == sorted(set(gaps))


def test_with_half_at_zero_a_single_unit_learns_as_fast_as_all():
    slow, same = (
        Forecast(problem_of(1, 3), Progress(), EPOCH, CurvePrior(own=0, half=half))
        for half in (math.sqrt(1 / 14), 0.0)
    )
    assert same({"0"}, 40).mean == same({"0", "1"}, 40).mean
    assert slow({"0"}, 40).mean == pytest.approx(slow({"0", "1"}, 20).mean)  # v(1/4) = 1/2


@settings(max_examples=30, deadline=None)
@given(st.lists(values, min_size=1, max_size=5), st.floats(1e-3, 1e3), st.data())
def test_scaling_contributions_changes_nothing(worth, factor, data):
    run = data.draw(runs(len(worth)))
    one = Forecast(problem_of(*worth), run, EPOCH, OPEN)
    other = Forecast(problem_of(*(factor * value for value in worth)), run, EPOCH, OPEN)
    expected = one({"0"}, 30)
    np.testing.assert_allclose(other({"0"}, 30).mean, expected.mean, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(other({"0"}, 30).weights, expected.weights, rtol=1e-6, atol=1e-9)


def test_order_of_units_does_not_matter():
    problem = problem_of(1, 5, 2)
    run = Progress(
        segments=tuple(Segment(trained=("1", "2"), steps=5, loss=2 - 0.1 * i) for i in range(6)),
        fresh=frozenset({"2"}),
    )
    one = Forecast(problem, run, EPOCH, CurvePrior())
    other = Forecast(Problem(problem.menus[::-1]), run, EPOCH, CurvePrior())
    assert other({"0", "2"}, 40).mean == pytest.approx(one({"0", "2"}, 40).mean, rel=1e-9)


def test_steps_beyond_the_useful_passes_change_nothing():
    prior = CurvePrior(passes=2)
    run = Progress(segments=(Segment(trained=("0",), steps=50),))
    forecast = Forecast(problem_of(1, 1), run, EPOCH, prior)
    assert forecast.useful_steps() == 150
    assert forecast({"0"}, 150).mean == forecast({"0"}, math.inf).mean < forecast({"0"}, 60).mean
    done = Progress(segments=(Segment(trained=("0",), steps=250),))
    assert Forecast(problem_of(1, 1), done, EPOCH, prior).useful_steps() == 0


def test_steps_on_data_seen_before_count_less():
    prior = CurvePrior(own=0.0, half=0.0, passes=6)
    problem, all_units = problem_of(1, 1), {"0", "1"}

    def loss(steps: float) -> float:
        return Forecast(problem, Progress(), EPOCH, prior)(all_units, steps).mean

    def plain(steps: float) -> float:
        return Forecast(problem, Progress(), EPOCH, STEPS_ONLY)(all_units, steps).mean

    lost = quad(lambda step: 1 - math.exp(-((step / (2 * EPOCH)) ** 4)), 0, 2 * EPOCH)[0]
    assert loss(EPOCH) == plain(EPOCH)
    assert loss(3 * EPOCH) == pytest.approx(plain(3 * EPOCH - lost))
    halfway = Progress(segments=(Segment(trained=("0", "1"), steps=2 * EPOCH),))
    rest = Forecast(problem, halfway, EPOCH, prior)(all_units, EPOCH).mean
    assert rest == pytest.approx(loss(3 * EPOCH))


@pytest.mark.parametrize(
    ("fresh", "has_end"), [({"0", "1"}, False), ((), True)], ids=["from scratch", "an end"]
)
def test_all_passes_count_from_scratch_and_to_the_end_of_the_run(fresh, has_end):
    problem, run = problem_of(1, 1), Progress(fresh=frozenset(fresh))
    forecast = Forecast(problem, run, EPOCH, CurvePrior(passes=2), has_end=has_end)
    assert forecast.useful_steps() == math.inf
    endless = Forecast(problem, run, EPOCH, OPEN)
    expected = endless({"0"}, 9 * EPOCH).mean
    assert forecast({"0"}, 9 * EPOCH).mean == pytest.approx(expected, rel=1e-12)


def test_losses_of_data_seen_before_count_less():
    early = [Segment(trained=("0",), steps=20, loss=2 - 0.2 * i) for i in range(5)]
    pause = Segment(trained=("0",), steps=2 * EPOCH)

    def forecast(prior: CurvePrior, loss: float) -> float:
        late = Segment(trained=("0",), steps=50, loss=loss)
        run = Progress(segments=(*early, pause, late))
        return Forecast(problem_of(1), run, EPOCH, prior)({"0"}, 0).mean

    memory, learning = (
        forecast(prior, 0.8) - forecast(prior, 0.4) for prior in (CurvePrior(passes=5), OPEN)
    )
    assert 0 < memory < 0.5 * learning


def test_above_is_exact_for_shared_curves():
    weights = np.array([0.2, 0.3, 0.5])
    low = Outcome(np.array([1.0, 5.0, 9.0]), weights)
    assert Outcome(low.losses + 0.25, weights).above(low) == (0.25, 0.0)
    other = Outcome(np.array([2.0, 5.0, 8.0]), weights)
    mean, std = other.above(low)
    assert mean == pytest.approx(-0.3)
    assert std == pytest.approx(math.sqrt(0.2 * 1.3**2 + 0.3 * 0.3**2 + 0.5 * 0.7**2))


@pytest.mark.parametrize("field", [field.name for field in fields(CurvePrior)])
def test_wrong_priors(field):
    with pytest.raises(ValueError, match=rf"Expected `{field}` to be in .*, but got -1"):
        CurvePrior(**{field: -1.0})
