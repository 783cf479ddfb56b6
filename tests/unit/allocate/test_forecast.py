"""Learning curves: what every forecast obeys, and what a run's losses teach it."""

from __future__ import annotations

import math
from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_attnbal.allocate import CurvePrior, Forecast, Outcome, Progress, Segment
from lightning_attnbal.core import FROZEN, FULL, Menu, Option, Problem

EPOCH = 100
FAR = 1e12  # steps
OPEN = CurvePrior(passes=1e12)
STEPS_ONLY = CurvePrior(own=0.0, half=0.0, passes=1e12)

values = st.floats(0, 10)
losses = st.one_of(st.floats(-5, 5), st.just(math.nan), st.just(0.0))


def problem_of(*worth: float) -> Problem:
    """Units "0", "1", ... of these contributions."""
    menus = [
        Menu(str(i), (Option(level=FROZEN, cost=1), Option(level=FULL, cost=2, value=value)))
        for i, value in enumerate(worth)
    ]
    return Problem(tuple(menus))


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


def curve(tau: float, num_segments: int, *, floor: float = 0.4, height: float = 1.1) -> Progress:
    """Losses as the model has them with ρ = c = 0, in stretches of 5 steps."""
    steps = [5.0 * i + 2.5 for i in range(num_segments)]
    loss = [floor + height * (1 + x / tau) ** -CurvePrior().power for x in steps]
    return Progress(segments=tuple(Segment(trained=("0",), steps=5, loss=x) for x in loss))


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


def test_positive_losses_are_never_forecast_below_zero():
    falling = [Segment(trained=("0",), steps=5, loss=1.0 - 0.05 * i) for i in range(19)]
    forecast = Forecast(problem_of(1, 1), Progress(segments=tuple(falling)), EPOCH, OPEN)
    assert (forecast({"0", "1"}, FAR).losses >= 0).all()


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


def test_no_speed_means_that_a_single_unit_learns_as_fast_as_all():
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
    assert forecast({"0"}, 150).mean == forecast({"0"}, math.inf).mean < forecast({"0"}, 149).mean
    done = Progress(segments=(Segment(trained=("0",), steps=250),))
    assert Forecast(problem_of(1, 1), done, EPOCH, prior).useful_steps() == 0


def log_scales(progress: Progress, prior: CurvePrior) -> tuple[float, float]:
    """Mean and standard deviation of log τ (in steps), read off what the curves forecast."""
    blank = Forecast(problem_of(1), Progress(), EPOCH, prior)
    start, end, floor = (blank({"0"}, steps).losses for steps in (0.0, 1.0, FAR))
    left = (end - floor) / (start - floor)
    log_tau = -np.log(left ** (-1 / prior.power) - 1)
    weights = Forecast(problem_of(1), progress, EPOCH, prior)({"0"}, 0.0).weights
    mean = float(weights @ log_tau)
    return mean, math.sqrt(weights @ (log_tau - mean) ** 2)


@pytest.mark.parametrize("away", [0.25, 0.5, 2.0, 4.0])
def test_the_fit_recovers_the_scale_of_a_curve(away):
    tau = away * STEPS_ONLY.scale * EPOCH
    before, doubt = log_scales(Progress(), STEPS_ONLY)
    few, _ = log_scales(curve(tau, 6), STEPS_ONLY)
    many, left = log_scales(curve(tau, 40), STEPS_ONLY)
    assert abs(few - math.log(tau)) < abs(before - math.log(tau))
    assert abs(many - math.log(tau)) < 0.4 * abs(before - math.log(tau))
    assert left < 0.7 * doubt


def test_the_spread_shrinks_with_data():
    tau = STEPS_ONLY.scale * EPOCH
    spreads = [log_scales(curve(tau, n), STEPS_ONLY)[1] for n in (0, 5, 10, 20, 40)]
    assert spreads == sorted(spreads, reverse=True)
    assert spreads[-1] < 0.6 * spreads[0]


def test_a_fitted_forecast_foretells_the_curve():
    tau = 3 * STEPS_ONLY.scale * EPOCH
    forecast = Forecast(problem_of(1), curve(tau, 20), EPOCH, STEPS_ONLY)
    truth = curve(tau, 60).segments[-1].loss
    assert forecast({"0"}, 197.5).mean == pytest.approx(truth, rel=0.05)


@pytest.mark.parametrize(
    "loss",
    [(0.0, 0.0, 0.0), (0.0, -1.0, -2.0), (-1.0, -1.5, -1.8), (-1.0,), (0.5, 0.9, 2.0), (0.0, 3.0)],
    ids=str,
)
def test_more_training_is_better_whatever_the_sign_of_the_loss(loss):
    run = Progress(segments=tuple(Segment(trained=("0",), steps=5, loss=x) for x in loss))
    forecast = Forecast(problem_of(1, 1), run, EPOCH, OPEN)
    none, few, many = (forecast({"0", "1"}, steps) for steps in (0, 40, 400))
    assert (few.losses <= none.losses).all()
    assert (many.losses <= few.losses).all()
    assert none.mean == pytest.approx(np.mean(loss), abs=1.5)


def test_a_loss_below_zero_is_forecast_like_the_same_loss_above_it():
    run = curve(20.0, 20, floor=1.0)
    low = [
        Segment(trained=("0",), steps=5, loss=s.loss - 1.0 - run.segments[0].loss)
        for s in run.segments
    ]
    above = Forecast(problem_of(1), run, EPOCH, STEPS_ONLY)({"0"}, 100).mean
    below = Forecast(problem_of(1), Progress(segments=tuple(low)), EPOCH, STEPS_ONLY)({"0"}, 100)
    assert below.mean + 1.0 + run.segments[0].loss == pytest.approx(above, abs=0.03)


def test_losses_far_from_a_narrow_prior_still_give_a_forecast():
    narrow = CurvePrior(spread=0.02, passes=1e12)
    run = curve(50 * narrow.scale * EPOCH, 40)
    outcome = Forecast(problem_of(1), run, EPOCH, narrow)({"0"}, 50)
    assert math.isfinite(outcome.mean)
    assert outcome.weights.sum() == pytest.approx(1)


def test_unknown_losses_are_passed_over():
    run = curve(20.0, 12)
    holes = [s if i % 3 else Segment(trained=("0",), steps=5) for i, s in enumerate(run.segments)]
    with_holes = Forecast(problem_of(1), Progress(segments=tuple(holes)), EPOCH, STEPS_ONLY)
    assert math.isfinite(with_holes({"0"}, 40).mean)
    none = Forecast(problem_of(1), run.without_losses(), EPOCH, STEPS_ONLY)
    unknown = [Segment(trained=("0",), steps=60)]
    same = Forecast(problem_of(1), Progress(segments=tuple(unknown)), EPOCH, STEPS_ONLY)
    assert none({"0"}, 40).mean == pytest.approx(same({"0"}, 40).mean)


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
