"""A run without an end of its own ends when more training would not help."""

from __future__ import annotations

import pytest

from lightning_attnbal.allocate import CurvePrior, ForecastAllocator, Limits, Progress, Segment
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
