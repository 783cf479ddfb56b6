"""The clock of a run, under a fake one."""

from __future__ import annotations

from lightning_attnbal.callbacks._timing import StepClock


class Time:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def clock_at(*laps: float) -> tuple[StepClock, Time]:
    time = Time()
    clock = StepClock(now=time)
    clock.start()
    for lap in laps:
        time.now += lap
        clock.lap()
    return clock, time


def test_median_shrugs_off_a_slow_first_step():
    assert clock_at(9.0, 1.0, 1.0, 1.0)[0].seconds_per_batch == 1.0


def test_forecast_holds_until_enough_steps_were_timed():
    clock, time = clock_at(2.0, 2.0, 2.0)
    clock.change_plan(0.5)
    assert clock.seconds_per_batch == 1.0
    for lap in (1.5, 1.5):
        time.now += lap
        clock.lap()
    assert clock.seconds_per_batch == 1.0
    time.now += 1.5
    clock.lap()
    assert clock.seconds_per_batch == 1.5


def test_pauses_count_for_the_run_but_for_no_batch():
    clock, time = clock_at(1.0, 1.0, 1.0)
    time.now += 50.0
    clock.pause()
    time.now += 1.0
    assert clock.lap() == 54.0
    assert clock.seconds_per_batch == 1.0


def test_whole_validation_is_extrapolated_from_the_sanity_check():
    clock, time = clock_at()
    clock.begin_validation()
    time.now += 2.0
    clock.end_validation(seen=2, whole=20)
    assert clock.seconds_per_validation == 20.0


def test_resumed_clock_goes_on_where_it_stood():
    clock, time = clock_at(1.0, 1.0, 1.0)
    other = StepClock(now=time)
    other.load_state_dict(clock.state_dict())
    other.start(spent=3.0)
    time.now += 1.0
    assert other.lap() == 4.0
    assert other.seconds_per_batch == 1.0
