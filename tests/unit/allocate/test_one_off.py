"""One-off costs: filling a cache, and when it pays."""

import math

import pytest

from lightning_attnbal.allocate import FrontierAllocator, LastKAllocator, Limits
from lightning_attnbal.core import CACHED, FROZEN, FULL, Menu, Option, Problem

EPOCH = 10


def stack(fill=EPOCH, num_units=4):
    """Blocks with forward 1, dX 1, dW 1; a prefix is filled in `fill` steps."""
    options = (
        Option(level=CACHED, cost=0, once=fill),
        Option(level=FROZEN, cost=1, cost_above=1),
        Option(level=FULL, cost=2, cost_above=1, value=1),
    )
    return Problem(tuple(Menu(f"layer.{i}", options) for i in range(num_units)))


@pytest.mark.parametrize("cost", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("once", [0.0, 5.0, 40.0])
@pytest.mark.parametrize("remaining", [1.0, 20.0, 45.0, 400.0])
def test_steps_are_what_the_total_buys(cost, once, remaining):
    limits = Limits(remaining=remaining, epoch_steps=EPOCH)
    steps = limits.steps(cost, once)
    assert limits.total(steps, cost, once) == pytest.approx(remaining)
    assert limits.total(1.01 * steps, cost, once) > remaining


def test_without_an_epoch_the_one_off_cost_is_paid_at_once():
    assert Limits(remaining=10).steps(1.0, 4.0) == 6.0
    assert Limits(remaining=10).total(2, 1.0, 4.0) == 6.0


def test_more_than_max_steps_are_never_bought():
    assert Limits(remaining=1e9, max_steps=7, epoch_steps=EPOCH).steps(1.0, 3.0) == 7


def test_a_prefix_is_cached_when_several_epochs_follow():
    limits = Limits(remaining=300, max_steps=100, epoch_steps=EPOCH)
    plan = FrontierAllocator(passes=4)(stack(), limits)
    assert plan["layer.0"] == CACHED
    assert FROZEN not in plan.values()


def test_a_prefix_is_frozen_when_less_than_an_epoch_follows():
    limits = Limits(remaining=20, max_steps=EPOCH - 2, epoch_steps=EPOCH)
    plan = FrontierAllocator()(stack(), limits)
    assert CACHED not in plan.values()
    assert plan["layer.0"] == FROZEN


@pytest.mark.parametrize(
    ("limits", "level"),
    [
        (Limits(remaining=27, epoch_steps=EPOCH), CACHED),
        (Limits(remaining=27, max_steps=9, epoch_steps=EPOCH), FROZEN),
        (Limits(remaining=21, epoch_steps=EPOCH), FROZEN),
    ],
    ids=["nine by the forecast", "nine by the user", "seven"],
)
def test_a_prefix_is_cached_where_the_budget_may_last_for_more_than_an_epoch(limits, level):
    low = (Option(level=CACHED, cost=0, once=EPOCH), Option(level=FROZEN, cost=1))
    head = Menu("head", (Option(level=FULL, cost=2, value=1),))
    assert FrontierAllocator()(Problem((Menu("low", low), head)), limits)["low"] == level


def test_a_full_cache_is_used_for_the_last_steps_too():
    limits = Limits(remaining=20, max_steps=EPOCH - 2, epoch_steps=EPOCH)
    assert FrontierAllocator()(stack(fill=0), limits)["layer.0"] == CACHED


def test_the_plan_counts_its_one_off_cost():
    problem = stack()
    allocator = LastKAllocator(1, caches=True)
    plan = allocator(problem, Limits(remaining=100, epoch_steps=EPOCH))
    assert [str(level) for level in plan.values()] == ["cached"] * 3 + ["full"]
    assert plan.cost_per_step == 2
    assert plan.num_steps == (100 - 3 * EPOCH) // 2
    assert problem.one_off(tuple(plan.values())) == 3 * EPOCH


def test_last_k_is_frozen_where_a_menu_lacks_cached():
    menus = list(stack().menus)
    menus[1] = Menu("layer.1", menus[1].options[1:])
    plan = LastKAllocator(1, caches=True)(Problem(tuple(menus)), Limits(remaining=100))
    assert [str(level) for level in plan.values()] == ["frozen"] * 3 + ["full"]


def test_steps_on_the_same_data_count_less_and_less():
    allocator = FrontierAllocator(passes=4)
    limits = Limits(remaining=1e6, epoch_steps=EPOCH)
    few, many, endless = (allocator.score(1e6 / n, 1.0, limits) for n in (1, 40, 4000))
    assert few == pytest.approx(1, rel=0.02)
    assert many == pytest.approx(40 * (1 - math.exp(-1)))
    assert endless == pytest.approx(40)


def test_an_endless_run_gets_a_plan_that_can_use_its_budget():
    """400 full steps would do for 12,000 steps of the head alone, 1,200 epochs."""
    problem = stack(fill=0)
    plan = FrontierAllocator()(problem, Limits(remaining=12 * 400, epoch_steps=EPOCH))
    assert set(plan.values()) == {FULL}
