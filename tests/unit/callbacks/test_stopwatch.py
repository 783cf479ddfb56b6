"""Every moment belongs to one part, and the parts sum to the whole."""

import pytest

from lightning_attnbal.callbacks._stopwatch import (
    ACTIVATION,
    CACHE,
    DATA,
    DECISIONS,
    FORWARD,
    OTHER,
    PARTS,
    WEIGHT,
    Stopwatch,
    timed,
    weight_share,
)
from lightning_attnbal.core import PassCost, Plan, Unit, UnitKind, UnitLoad


class Clock:
    """Stands still until it is told to go on."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def watch(clock):
    watch = Stopwatch(clock)
    watch.start()
    return watch


def spend(watch, clock, **parts):
    for part, seconds in parts.items():
        watch.turn_to(part)
        clock.now += seconds


def spent(watch):
    return {part: seconds for part, seconds in watch.read().items() if seconds}


def test_parts_sum_to_the_time_since_the_start(watch, clock):
    clock.now += 5.0
    spend(watch, clock, forward=2.0, decisions=1.0, activation_gradient=3.0, optimizer=0.5)
    spend(watch, clock, data=0.25, forward=1.0)
    assert spent(watch) == {
        "other": 5.0,
        "forward": 3.0,
        "decisions": 1.0,
        "activation_gradient": 3.0,
        "optimizer": 0.5,
        "data": 0.25,
    }
    assert sum(watch.read().values()) == clock.now
    assert tuple(watch.read()) == PARTS


def test_reading_the_cache_and_the_weight_gradient_are_taken_out(watch, clock):
    spend(watch, clock, forward=2.0, activation_gradient=4.0)
    watch.turn_to(OTHER)
    assert watch.lap == 4.0
    watch.move(FORWARD, CACHE, 0.5)
    watch.move(ACTIVATION, WEIGHT, 3.0)
    assert spent(watch) == {
        "forward": 1.5,
        "activation_gradient": 1.0,
        "weight_gradient": 3.0,
        "cache": 0.5,
    }


def test_during_returns_to_the_part_before_also_after_an_exception(watch, clock):
    def probe():
        clock.now += 2.0
        raise RuntimeError("probe failed")

    watch.turn_to(DATA)
    with pytest.raises(RuntimeError, match="probe failed"), watch.during("probes"):
        probe()
    clock.now += 1.0
    assert spent(watch) == {"probes": 2.0, "data": 1.0}


def test_restored_totals_go_on(watch, clock):
    spend(watch, clock, forward=2.0, data=1.0)
    saved = watch.read()
    later = Stopwatch(clock)
    later.start()
    clock.now += 60.0  # set-up of the new process
    later.load_state_dict(saved)
    spend(later, clock, forward=1.0)
    assert spent(later) == {"forward": 3.0, "data": 1.0}


class Hooks:
    def __init__(self, watch, clock):
        self._stopwatch, self._clock = watch, clock

    @timed(FORWARD)
    def begins(self):
        self._clock.now += 1.0

    @timed(DATA)
    def calls_another(self):
        self.begins()
        self._clock.now += 2.0

    @timed(DATA)
    def fails(self):
        raise RuntimeError("hook failed")


def test_a_hook_is_for_decisions_and_names_what_follows(watch, clock):
    hooks = Hooks(watch, clock)
    hooks.begins()
    clock.now += 10.0
    hooks.calls_another()
    clock.now += 20.0
    assert spent(watch) == {"decisions": 4.0, "forward": 10.0, "data": 20.0}
    assert Hooks.begins.__name__ == "begins"


def test_a_hook_that_fails_ends(watch, clock):
    with pytest.raises(RuntimeError, match="hook failed"):
        Hooks(watch, clock).fails()
    assert watch.part == DATA != DECISIONS


COST = PassCost(forward=10.0, own_backward=14.0, pass_backward=10.0, full_backward=20.0)
LOADS = [
    UnitLoad(Unit(name, i, UnitKind.BLOCK, (), (), 0), COST, predecessors=(i - 1,) if i else ())
    for i, name in enumerate(("low", "mid", "high"))
]


@pytest.mark.parametrize(
    ("levels", "share"),
    [
        pytest.param(("full", "full", "full"), 30 / 54, id="all: own, full, full"),
        pytest.param(("frozen", "frozen", "full"), 10 / 14, id="only the top"),
        pytest.param(("cached", "full", "full"), 20 / 34, id="cached prefix"),
        pytest.param(("full", "frozen", "frozen"), 10 / 34, id="through frozen ones"),
    ],
)
def test_weight_share_follows_the_plan(levels, share):
    plan = Plan(dict(zip(("low", "mid", "high"), levels, strict=True)))
    assert weight_share(LOADS, plan) == pytest.approx(share)


def test_weight_share_without_costs_is_zero():
    free = [UnitLoad(LOADS[0].unit, PassCost())]
    assert weight_share(free, Plan({"low": "full"})) == 0.0
