"""What holds for every contribution meter."""

from __future__ import annotations

import io
import math
import statistics

import pytest
import torch

from lightning_attnbal.measure import ContributionMeter
from tests.registry import METERS
from tests.unit.measure.contribution.runs import Run

KINDS = [kind for kind in METERS if issubclass(kind, ContributionMeter)]
STEP_KINDS = [kind for kind in KINDS if hasattr(kind, "after_step")]

each_meter = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
each_step_meter = pytest.mark.parametrize("kind", STEP_KINDS, ids=lambda kind: kind.__name__)


def saved(state):
    """Through a file that may hold plain data and tensors only."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def assert_close(found, expected):
    assert list(found) == list(expected)
    for name, contribution in expected.items():
        assert found[name].count == contribution.count
        assert found[name].mean == pytest.approx(contribution.mean, rel=1e-9)
        assert found[name].std_error == pytest.approx(contribution.std_error, rel=1e-6)


def test_every_meter_is_tried():
    assert len(KINDS) >= 7
    assert len(STEP_KINDS) >= 5


@each_meter
def test_state_is_what_was_declared(kind):
    run = Run(kind)
    meter = run.meter()
    run.feed(meter, run.batches[:3])
    assert set(meter.state_dict()) == set(kind.REDUCTIONS)


@each_meter
def test_restored_meter_continues_equal(kind):
    """In the middle of an interval, an estimate pending."""
    counts = []
    for is_resumed in (False, True):
        run = Run(kind)
        meter = run.meter()
        run.feed(meter, run.batches[:5])
        if is_resumed:
            old, meter = meter, run.meter()
            meter.load_state_dict(saved(old.state_dict()))
        run.feed(meter, run.batches[5:12])
        counts.append(meter.compute())
    assert counts[0] == counts[1]


@each_meter
def test_a_saved_state_does_not_follow_the_meter(kind):
    run = Run(kind)
    meter = run.meter()
    run.feed(meter, run.batches[:5])
    state, text = meter.state_dict(), str(meter.state_dict())
    run.feed(meter, run.batches[5:9])
    assert str(state) == text


@each_meter
def test_merged_ranks_equal_one_meter_that_saw_everything(kind):
    """Both ranks' estimates are fed to a third meter, number by number."""
    ranks, seen = [], []
    for part in (slice(0, 7), slice(7, 20)):
        run = Run(kind)
        meter = run.meter()
        plain = meter.estimate

        def spy(unit, sample, plain=plain):
            seen.append((unit, plain(unit, sample)))
            return seen[-1][1]

        meter.estimate = spy
        run.feed(meter, run.batches[part])
        meter.skipped += 1
        ranks.append(saved(meter.state_dict()))
    total = Run(kind).meter()
    total.merge(ranks)
    values = {name: [v for n, v in seen if n == name and v is not None] for name in "01"}
    assert total.skipped == 2
    for name, contribution in total.compute().items():
        error = statistics.stdev(values[name]) / math.sqrt(len(values[name]))
        assert contribution.count == len(values[name]) > 5
        assert contribution.mean == pytest.approx(statistics.mean(values[name]), rel=1e-9)
        assert contribution.std_error == pytest.approx(error, rel=1e-6)
    assert set(total.compute()) == {"0", "1"}


@each_meter
def test_merging_one_state_changes_nothing_and_none_empties(kind):
    run = Run(kind)
    meter = run.meter()
    run.feed(meter, run.batches)
    expected = meter.compute()
    meter.merge([meter.state_dict()])
    assert_close(meter.compute(), expected)
    meter.merge([])
    assert meter.compute() == {}


@each_meter
def test_nan_is_counted_not_averaged(kind):
    run = Run(kind)
    meter = run.meter()
    run.feed(meter, run.batches[:6])
    before = meter.compute()
    run.feed(meter, run.batches[6:7], scale=math.nan)
    assert meter.compute() == before
    assert meter.skipped == 2


@each_meter
def test_forgotten_unit_starts_afresh_and_the_others_stay(kind):
    """As many estimates as a new meter gives, not one more from what was under way."""
    run = Run(kind)
    meter, new = run.meter(), Run(kind)
    run.feed(meter, run.batches[:6])
    before = meter.compute()
    meter.forget(name for name in ["1"])
    assert meter.compute() == {"0": before["0"]}
    run.feed(meter, run.batches[6:12])
    fresh = new.meter()
    new.feed(fresh, new.batches[:6])
    assert meter.compute()["1"].count == fresh.compute()["1"].count


@each_meter
def test_units_that_are_gone_are_dropped_on_load(kind):
    run = Run(kind)
    meter = run.meter()
    run.feed(meter, run.batches[:6])
    run.units = run.units[1:]
    other = run.meter()
    other.load_state_dict(meter.state_dict())
    assert other.compute() == {"1": meter.compute()["1"]}


@each_meter
def test_unknown_unit_is_refused(kind):
    with pytest.raises(ValueError, match="`unit` to be one of '0', '1', but got 'head'"):
        Run(kind).meter().add("head", [])


@each_step_meter
def test_training_does_not_notice_the_meter(kind):
    runs = [Run(kind), Run(kind)]
    runs[0].feed(runs[0].meter(), runs[0].batches)
    runs[1].feed(Ignorant(), runs[1].batches)
    for a, b in zip(runs[0].model.parameters(), runs[1].model.parameters(), strict=True):
        assert torch.equal(a, b)
        assert torch.equal(a.grad, b.grad)


class Ignorant:
    def before_step(self):
        pass

    def after_step(self, optimizers):
        pass


@each_step_meter
def test_a_frozen_unit_gets_no_estimates(kind):
    run = Run(kind)
    run.model[0].weight.requires_grad_(False)
    meter = run.meter()
    run.feed(meter, run.batches[:8])
    assert set(meter.compute()) == {"1"}


@each_step_meter
def test_a_unit_at_rate_zero_gets_no_estimates(kind):
    run = Run(kind)
    run.optimizer = torch.optim.SGD(
        [{"params": run.model[0].parameters(), "lr": 0.0}, {"params": run.model[1].parameters()}],
        lr=0.1,
    )
    meter = run.meter()
    run.feed(meter, run.batches[:8])
    assert set(meter.compute()) == {"1"}
