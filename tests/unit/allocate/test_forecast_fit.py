"""Learning curves: what a run's losses teach a forecast."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lightning_attnbal.allocate import CurvePrior, Forecast, Progress, Segment
from tests.unit.allocate.learners import EPOCH, FAR, OPEN, STEPS_ONLY, problem_of


def curve(tau: float, num_segments: int, *, floor: float = 0.4, height: float = 1.1) -> Progress:
    """Losses as the model has them with ρ = c = 0, in stretches of 5 steps."""
    steps = [5.0 * i + 2.5 for i in range(num_segments)]
    loss = [floor + height * (1 + x / tau) ** -CurvePrior().power for x in steps]
    return Progress(segments=tuple(Segment(trained=("0",), steps=5, loss=x) for x in loss))


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


def test_positive_losses_are_never_forecast_below_zero():
    falling = [Segment(trained=("0",), steps=5, loss=1.0 - 0.05 * i) for i in range(19)]
    forecast = Forecast(problem_of(1, 1), Progress(segments=tuple(falling)), EPOCH, OPEN)
    assert (forecast({"0", "1"}, FAR).losses >= 0).all()
