"""A run without an end of its own ends when more training would not help."""

from __future__ import annotations

import pytest

from lightning_attnbal.allocate import (
    Allocator,
    Choice,
    CurvePrior,
    ForecastAllocator,
    Limits,
    Progress,
    Segment,
    full_levels,
)
from tests.unit.allocate.learners import EPOCH, layers, ran


@pytest.mark.parametrize("fresh", [frozenset(), frozenset({"layer.2"})], ids=["none", "head"])
def test_what_is_left_when_nothing_more_can_be_learned_is_handed_back(fresh):
    problem, prior = layers(1.0, 1.0, 1.0), CurvePrior(passes=3)
    progress = Progress(segments=ran("layer.2").segments, fresh=fresh)
    plan = ForecastAllocator(prior=prior)(
        problem, Limits(remaining=1e9, epoch_steps=EPOCH), None, progress
    )
    assert plan.is_final
    assert plan.num_steps == 3 * EPOCH - progress.steps


@pytest.mark.parametrize(
    ("limits", "fresh"),
    [
        (Limits(remaining=1e9, epoch_steps=EPOCH), {"layer.0", "layer.1"}),
        (Limits(remaining=1e9, epoch_steps=EPOCH, max_steps=10_000), set()),
        (Limits(remaining=1e9), set()),
        (Limits(remaining=500, epoch_steps=EPOCH), set()),
    ],
    ids=["from scratch", "an end of its own", "data of unknown length", "a small budget"],
)
def test_nothing_is_handed_back(limits, fresh):
    problem = layers(1.0, 1.0, 1.0)
    progress = Progress(fresh=frozenset(fresh))
    plan = ForecastAllocator()(problem, limits, None, progress)
    cost, _, _ = problem.evaluate(tuple(plan.values()))
    assert not plan.is_final
    assert plan.num_steps == limits.num_steps(cost)


def test_past_the_useful_passes_a_single_step_is_left():
    problem, prior = layers(1.0, 1.0), CurvePrior(passes=1)
    progress = Progress(segments=(Segment(trained=("layer.1",), steps=500, loss=1.0),))
    limits = Limits(remaining=1e9, epoch_steps=EPOCH)
    plan = ForecastAllocator(prior=prior)(problem, limits, None, progress)
    assert (plan.is_final, plan.num_steps) == (True, 1)


class _Ends(Allocator):
    """Everything for 100 steps, then nothing more."""

    def allocate(self, problem, limits, current, progress):
        return Choice(levels=full_levels(problem), num_steps=100, is_final=True, method="made up")


@pytest.mark.parametrize(("steps", "expected"), [(150, (True, 100)), (50.5, (False, 50))])
def test_a_run_that_the_budget_is_forecast_to_end_does_not_end_by_the_plan(steps, expected):
    """What a step costs is an estimate: where it was too high, more steps are left."""
    problem = layers(1.0, 1.0)
    cost, _, _ = problem.evaluate(full_levels(problem))
    plan = _Ends()(problem, Limits(remaining=steps * cost))
    assert (plan.is_final, plan.num_steps) == expected
