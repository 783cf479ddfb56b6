"""The bandit: its formula by hand, its first tries, and what it finds in made-up runs."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest

from lightning_attnbal.allocate import BanditAllocator, Limits, Progress, Segment, frontier
from lightning_attnbal.core import (
    CACHED,
    FROZEN,
    FULL,
    InfeasibleBudgetError,
    Menu,
    Option,
    Problem,
)

UNITS = ("layer.0", "layer.1", "layer.2", "layer.3")


def blocks(num_units=4, cached=False, fill=0.0):
    """Equal blocks: training the last k of them costs num_units + 2k - 1 per step."""
    options = (
        Option(level=FROZEN, cost=1, cost_above=1),
        Option(level=FULL, cost=2, cost_above=1, value=1),
    )
    if cached:
        options = (Option(level=CACHED, cost=0, once=fill), *options)
    return Problem(tuple(Menu(f"layer.{i}", options) for i in range(num_units)))


def run(*stretches):
    """Segments of 10 steps each: which last k units trained, and at which loss."""
    segments = (Segment(trained=UNITS[-k:], steps=10, loss=loss) for k, loss in stretches)
    return Progress(segments=tuple(segments))


LIMITS = Limits(remaining=10_000.0, epoch_steps=100)


def depth(plan):
    return len(plan.trained)


def test_every_arm_is_tried_once_before_any_is_compared():
    progress, tried = run((4, 5.0)), []
    for loss in (4.0, 3.0, 2.0, 1.5):
        plan = BanditAllocator()(blocks(), LIMITS, progress=progress)
        tried.append(depth(plan))
        assert plan.num_steps == 10
        assert "first try" in plan.method
        segment = Segment(trained=plan.trained, steps=10, loss=loss)
        progress = Progress(segments=(*progress.segments, segment))
        if len(set(tried)) == 3 and 4 not in tried:
            break
    assert len(set(tried)) == len(tried)
    assert set(tried) | {4} == {1, 2, 3, 4}


def test_the_seed_draws_the_order_of_first_tries():
    first = {depth(BanditAllocator(seed=seed)(blocks(), LIMITS)) for seed in range(20)}
    assert first == {1, 2, 3, 4}


def test_bounds_follow_the_formula():
    """Two arms, costs 3 and 5 per step, by hand."""
    problem = blocks(2)
    segments = [("layer.0", 5.0), ("layer.0", 4.0), ("layer.1", 3.2), ("layer.1", 2.8)]
    progress = Progress(
        segments=tuple(
            Segment(
                trained=("layer.0", "layer.1") if low == "layer.0" else (low,), steps=10, loss=x
            )
            for low, x in segments
        )
    )
    gamma = 0.5
    # (age in stretches, fall per cost between the middles, plays of full, plays of last)
    falls = [(0, 0.4 / 30, 0, 1.0), (1, 0.8 / 40, 0.5, 0.5), (2, 1.0 / 50, 1.0, 0)]
    fits = []
    for slowdown in np.linspace(0, 0.5, 26):
        then = [math.exp(slowdown * age) for age, *_ in falls]
        means, misfit = [], 0.0
        for i in (2, 3):
            weights = [gamma ** f[0] * f[i] for f in falls]
            rows = list(zip(weights, then, (f[1] for f in falls), strict=True))
            mean = sum(w * t * r for w, t, r in rows) / sum(w * t * t for w, t, _ in rows)
            misfit += sum(w * (r - mean * t) ** 2 for w, t, r in rows)
            means.append(mean)
        fits.append((misfit, means))
    means = min(fits)[1]
    plays = [sum(gamma ** f[0] * f[i] for f in falls) for i in (2, 3)]
    total = sum(plays)
    size = math.sqrt(sum(n * x**2 for n, x in zip(plays, means, strict=True)) / total)
    for exploration in (0.0, 0.3, 5.0):
        bonus = [2 * size * math.sqrt(exploration * math.log(1 + total) / n) for n in plays]
        plan = BanditAllocator(exploration=exploration, discount=gamma)(
            problem, Limits(remaining=3000.0, epoch_steps=100), progress=progress
        )
        best = max((0, 1), key=lambda i: means[i] + bonus[i])
        assert depth(plan) == (2, 1)[best]
        assert f"{means[best]:.3g} per cost (bonus {bonus[best]:.3g})" in plan.method


def play(slopes, *, steps=2000, cap=None, power=0.0):
    """Run the bandit in a world where depth k lowers the loss by `slopes[k]` per unit of cost.

    With `power` all slow down together, as learning curves do: rate · loss^power.
    """
    problem, loss = blocks(), 10.0
    costs = {len(p.plan.trained): p.cost for p in frontier(problem)}
    budget = remaining = steps * costs[4] / 2
    progress, taken, done = Progress(), Counter(), 0
    allocator = BanditAllocator()
    while remaining > costs[4] and (cap is None or done < cap):
        left = None if cap is None else cap - done
        limits = Limits(remaining=remaining, max_steps=left, epoch_steps=500)
        plan = allocator(problem, limits, progress=progress)
        k, n = depth(plan), plan.num_steps
        fall = slopes[k] * costs[k] * n * max(loss, 0.0) ** power
        segment = Segment(trained=plan.trained, steps=n, loss=loss - fall / 2)
        progress = Progress(segments=(*progress.segments, segment))
        loss, remaining, done = loss - fall, remaining - n * costs[k], done + n
        taken[k] += n * costs[k]
    return {k: spent / budget for k, spent in taken.items()}


@pytest.mark.parametrize("best", [1, 2, 3, 4])
@pytest.mark.parametrize("power", [0.0, 1.5], ids=["steady", "slowing down"])
def test_most_of_the_budget_goes_to_the_depth_that_pays_most(best, power):
    slopes = dict.fromkeys((1, 2, 3, 4), 1e-4) | {best: 3e-4}
    spent = play(slopes, power=power)
    assert max(spent, key=spent.get) == best
    assert spent[best] > 0.45


def test_a_depth_that_cannot_use_the_budget_counts_for_the_part_it_can():
    """The last layer pays twice as much per cost, but 300 steps of it cost a small part."""
    spent = play({1: 2e-4, 2: 1e-4, 3: 1e-4, 4: 1e-4}, cap=1000)
    assert sum(spent.values()) > 0.8


def test_first_tries_take_a_quarter_of_a_short_run():
    plan = BanditAllocator(stretch=1.0)(blocks(), Limits(remaining=1400.0, epoch_steps=500))
    assert plan.num_steps == (0.25 * 1400 / 11) // 4


def test_many_depths_are_thinned_out():
    limits = Limits(remaining=1e6, epoch_steps=100)
    tried = {depth(BanditAllocator(most_arms=3, seed=s)(blocks(12), limits)) for s in range(200)}
    assert tried == {4, 8, 12}


def test_units_that_were_never_trained_are_not_frozen():
    fresh = Progress(fresh=frozenset({"layer.1", "layer.3"}))
    tried = {depth(BanditAllocator(seed=s)(blocks(), LIMITS, progress=fresh)) for s in range(20)}
    assert tried == {3, 4}


def test_filling_a_cache_is_part_of_the_price():
    """The last layer costs 2 per step and 300 once; cached only where that is repaid."""
    problem = blocks(4, cached=True, fill=100.0)
    progress = run((4, 5.0), (3, 4.9), (2, 4.8), (1, 4.7), (1, 4.5))
    limits = Limits(remaining=2300.0, epoch_steps=100)
    plan = BanditAllocator(exploration=0.0, discount=1e-9)(problem, limits, progress=progress)
    assert plan["layer.0"] == CACHED
    assert f"{0.2 / (10 * 2.3):.3g} per cost" in plan.method
    scarce = Limits(remaining=60.0, epoch_steps=100)
    assert CACHED not in set(BanditAllocator()(problem, scarce, progress=progress).values())


def test_losses_that_are_unknown_are_passed_over():
    known = run((4, 5.0), (3, 4.5), (2, 4.0), (1, 3.9))
    holes = [Segment(trained=UNITS, steps=10), *known.segments]
    a = BanditAllocator()(blocks(), LIMITS, progress=known)
    assert BanditAllocator()(blocks(), LIMITS, progress=Progress(segments=tuple(holes))) == a


def test_units_of_another_model_in_the_record_are_passed_over():
    other = Progress(segments=(Segment(trained=("stem",), steps=10, loss=1.0),) * 3)
    assert "first try" in BanditAllocator()(blocks(), LIMITS, progress=other).method


def test_the_current_plan_changes_nothing():
    progress = run((4, 5.0), (3, 4.5), (2, 4.0), (1, 3.9))
    plans = [BanditAllocator()(blocks(), LIMITS, current, progress) for current in (None,)]
    again = BanditAllocator()(blocks(), LIMITS, plans[0], progress)
    assert again == plans[0]


def test_no_step_of_any_depth_is_named():
    with pytest.raises(InfeasibleBudgetError, match="to be at least 5"):
        BanditAllocator()(blocks(), Limits(remaining=4.9))


def test_the_memory_limit_holds():
    options = (
        Option(level=FROZEN, cost=1, cost_above=1),
        Option(level=FULL, cost=2, cost_above=1, value=1, memory=4),
    )
    problem = Problem(tuple(Menu(name, options) for name in UNITS))
    limits = Limits(remaining=1e4, epoch_steps=100, memory=9.0)
    tried = {depth(BanditAllocator(seed=s)(problem, limits)) for s in range(20)}
    assert max(tried) == 2


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"exploration": -1.0}, r"`exploration` to be in \[0, inf\)"),
        ({"discount": 0.0}, r"`discount` to be in \(0, 1\]"),
        ({"stretch": 0.0}, r"`stretch` to be in \(0, inf\)"),
        ({"most_arms": 0}, r"`most_arms` to be in \[1, inf\)"),
        ({"seed": -1}, r"`seed` to be in \[0, inf\)"),
        ({"resolution": 0}, r"`resolution` to be in \[1, inf\)"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_wrong_settings(setting, message):
    with pytest.raises(ValueError, match=message):
        BanditAllocator(**setting)
