"""Losses are averaged stretch by stretch, without a sync, and survive a checkpoint."""

from __future__ import annotations

import io
import math

import pytest
import torch

from lightning_attnbal.allocate import Progress, Segment
from lightning_attnbal.callbacks._losses import Losses

ALL, HEAD = ("body", "head"), ("head",)


def fed(*steps, window=2):
    losses = Losses(window=window)
    for trained, loss, stepped in steps:
        losses.add(trained, None if loss is None else torch.tensor(loss), stepped=stepped)
    return losses


def stretches(losses):
    return [(s.trained, s.steps, s.loss) for s in losses.progress(frozenset()).segments]


def test_a_stretch_is_so_many_steps_under_one_plan():
    losses = fed(*[(ALL, x, True) for x in (4.0, 2.0, 1.0)], *[(HEAD, x, True) for x in (3.0, 5.0)])
    assert stretches(losses) == [(ALL, 2, 3.0), (ALL, 1, 1.0), (HEAD, 2, 4.0)]


def test_accumulated_batches_all_count():
    losses = fed(*[(ALL, x, i % 2 == 1) for i, x in enumerate((1.0, 3.0, 5.0, 7.0, 9.0))])
    assert stretches(losses) == [(ALL, 2, 4.0)]  # the batch of the open step is in the next stretch
    losses.add(ALL, torch.tensor(11.0), stepped=True)
    assert stretches(losses) == [(ALL, 2, 4.0), (ALL, 1, 10.0)]


def test_batches_before_the_first_step_belong_to_nothing_yet():
    assert stretches(fed((ALL, 1.0, False))) == []


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_bad_loss_spoils_its_stretch_and_no_other(bad):
    losses = fed(*[(ALL, x, True) for x in (1.0, bad, 2.0, 4.0)])
    (_, _, first), (_, _, second) = stretches(losses)
    assert math.isnan(first)
    assert second == 3.0


def test_batches_without_a_loss_are_steps_all_the_same():
    (stretch,) = fed((ALL, None, True), (ALL, 3.0, True)).progress(frozenset()).segments
    assert (stretch.steps, stretch.loss) == (2, 3.0)
    (unknown,) = fed((ALL, None, True)).progress(frozenset()).segments
    assert math.isnan(unknown.loss)


def test_what_was_fresh_is_passed_on():
    assert fed().progress(frozenset({"head"})) == Progress(fresh=frozenset({"head"}))


def test_a_long_run_is_told_in_few_stretches_with_the_same_mean():
    values = torch.rand(1000, dtype=torch.float64).tolist()
    losses = fed(*[(ALL, x, True) for x in values], window=1)
    found = losses.progress(frozenset()).segments
    assert len(found) <= 66
    assert sum(s.steps for s in found) == 1000
    assert sum(s.steps * s.loss for s in found) == pytest.approx(sum(values))


def test_losses_hold_no_graph():
    weight = torch.ones((), requires_grad=True)
    losses = Losses(window=5)
    losses.add(ALL, weight * 2, stepped=True)
    (weight * 3).backward()
    weight.data += 1
    assert stretches(losses) == [(ALL, 1, 2.0)]


@pytest.mark.parametrize("at", range(8))
def test_restored_losses_go_on_as_the_first_would(at):
    steps = [
        (ALL, 4.0, False),
        (ALL, 2.0, True),
        (ALL, math.nan, True),
        (HEAD, 1.5, True),
        (HEAD, 0.1, False),
        (HEAD, 0.7, True),
        (ALL, 0.3, True),
    ]
    whole, first = fed(*steps), fed(*steps[:at])
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    resumed = Losses(window=2)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    for trained, loss, stepped in steps[at:]:
        resumed.add(trained, torch.tensor(loss), stepped=stepped)
    assert str(stretches(resumed)) == str(stretches(whole))  # NaN is not equal to itself


def test_progress_survives_its_dictionary():
    segments = (Segment(trained=ALL, steps=3, loss=1.5), Segment(trained=HEAD, steps=1.0, loss=2.0))
    progress = Progress(segments=segments, fresh=frozenset({"head"}))
    assert Progress.from_dict(progress.to_dict()) == progress
    assert progress.steps == 4
    assert [s.steps for s in progress.without_losses().segments] == [3, 1]
    assert all(math.isnan(s.loss) for s in progress.without_losses().segments)


def test_a_stretch_needs_steps():
    with pytest.raises(ValueError, match=r"Expected `steps` to be in \(0, inf\), but got 0"):
        Segment(trained=ALL, steps=0)
