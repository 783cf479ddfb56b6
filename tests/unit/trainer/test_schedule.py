"""The shapes: their ends, their range, their order, and their refusals."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_attnbal.trainer import (
    ConstantSchedule,
    CosineSchedule,
    LinearSchedule,
    REXSchedule,
    Schedule,
    make_schedule,
)

DECAYS = [LinearSchedule, CosineSchedule, REXSchedule]
shares = st.floats(0.0, 1.0)
warmups = st.floats(0.0, 0.99)


@pytest.mark.parametrize(
    ("schedule", "progress", "factor"),
    [
        (LinearSchedule(), 0.25, 0.75),
        (LinearSchedule(floor=0.5), 0.5, 0.75),
        (CosineSchedule(), 1 / 3, 0.75),
        (REXSchedule(), 0.5, 0.5 / 0.75),
        (REXSchedule(), 0.9, 0.1 / 0.55),
        (ConstantSchedule(), 1.0, 1.0),
        (ConstantSchedule(warmup=0.5), 0.25, 0.5),
        (LinearSchedule(warmup=0.5), 0.75, 0.5),
        (LinearSchedule(), -3.0, 1.0),
        (LinearSchedule(floor=0.1), 7.0, 0.1),
        (LinearSchedule(warmup=0.1, floor=0.1), math.inf, 0.1),
    ],
    ids=str,
)
def test_values(schedule, progress, factor):
    assert schedule(progress) == pytest.approx(factor, abs=1e-12)


@pytest.mark.parametrize("kind", DECAYS)
@given(warmup=warmups, floor=shares)
def test_ends_are_exact(kind, warmup, floor):
    schedule = kind(warmup=warmup, floor=floor)
    assert schedule(warmup) == 1.0
    assert schedule(1.0) == floor
    assert schedule(0.0) == (0.0 if warmup else 1.0)


@pytest.mark.parametrize("kind", DECAYS)
@given(warmup=warmups, floor=shares, progress=shares)
def test_stays_in_range(kind, warmup, floor, progress):
    factor = kind(warmup=warmup, floor=floor)(progress)
    low = floor if progress >= warmup else 0.0
    assert low - 1e-15 <= factor <= 1.0


@pytest.mark.parametrize("kind", DECAYS)
@given(warmup=warmups, floor=shares, pair=st.tuples(shares, shares))
def test_rises_while_warming_up_and_falls_after(kind, warmup, floor, pair):
    schedule = kind(warmup=warmup, floor=floor)
    early, late = sorted(pair)
    if late <= warmup:
        assert schedule(early) <= schedule(late)
    if early >= warmup:
        assert schedule(early) >= schedule(late) - 1e-12


@given(progress=shares)
def test_rex_stays_above_linear(progress):
    assert REXSchedule()(progress) >= LinearSchedule()(progress)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("linear", LinearSchedule),
        ("cosine", CosineSchedule),
        ("rex", REXSchedule),
        ("constant", ConstantSchedule),
    ],
)
def test_make_schedule_by_name(name, kind):
    assert make_schedule(name, warmup=0.1) == kind(warmup=0.1)


def test_make_schedule_keeps_a_schedule():
    schedule = REXSchedule(warmup=0.2, floor=0.1)
    assert make_schedule(schedule) is schedule


def test_a_new_shape_gets_warmup_and_checks():
    class Square(Schedule):
        def _after_warmup(self, t):
            return (1 - t) ** 2

    assert [Square(warmup=0.5)(p) for p in (0.25, 0.5, 0.75, 1.0)] == [0.5, 1.0, 0.25, 0.0]


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: LinearSchedule(warmup=1.0), r"`warmup` to be in \[0, 1\), but got 1\.0"),
        (lambda: ConstantSchedule(warmup=-0.1), r"`warmup` to be in \[0, 1\), but got -0\.1"),
        (lambda: CosineSchedule(floor=1.1), r"`floor` to be in \[0, 1\], but got 1\.1"),
        (lambda: REXSchedule(floor=math.nan), r"`floor` to be in \[0, 1\], but got nan"),
        (lambda: REXSchedule()(math.nan), r"`progress` to be in \[0, 1\], but got nan"),
        (
            lambda: make_schedule("lineer"),
            "one of 'linear', 'cosine', 'rex', 'constant', but got 'lineer'",
        ),
        (lambda: make_schedule(LinearSchedule(), warmup=0.1), "`warmup` to be set in the schedule"),
    ],
)
def test_refusals(call, match):
    with pytest.raises(ValueError, match=match):
        call()


def test_schedules_are_frozen():
    with pytest.raises(AttributeError, match="cannot assign to field 'warmup'"):
        LinearSchedule().warmup = 0.5
