"""Shares and plans of tasks that help or harm each other."""

from dataclasses import replace
from itertools import permutations, product

import numpy as np
import pytest

from lightning_attnbal.allocate import Limits, Progress, Segment
from lightning_attnbal.core import FROZEN, FULL, Menu, Option, Problem
from lightning_attnbal.measure import Contribution
from lightning_attnbal.multitask import (
    ForecastGain,
    Mix,
    Outlook,
    TaskTerms,
    allocate_coupled,
    allocate_tasks,
    help_from_others,
    step_equivalents,
)

UNITS = ("low", "head")
PLANS = ((FROZEN, FULL), (FULL, FULL))


def task(name, *, cost=1.0, weight=1.0, speed=0.1, steps=20):
    """A task whose loss falls as 1 / (1 + speed · step) so far; the head holds half."""
    menus = (
        Menu(
            "low",
            (
                Option(level=FROZEN, cost=0.2 * cost, cost_above=0.2 * cost),
                Option(level=FULL, cost=0.6 * cost, cost_above=0.4 * cost, value=1.0),
            ),
        ),
        Menu("head", (Option(level=FULL, cost=0.4 * cost, value=1.0),)),
    )
    segments = [Segment(trained=UNITS, steps=1, loss=1 / (1 + speed * i)) for i in range(steps)]
    outlook = Outlook(progress=Progress(segments=tuple(segments)), epoch_steps=100)
    problem = Problem(menus, task=name)
    return TaskTerms(problem=problem, weight=weight, gain=ForecastGain(problem, outlook))


def evenly(terms, steps):
    plans = {term.name: (FULL, FULL) for term in terms}
    return Mix(steps={term.name: steps / len(terms) for term in terms}, plans=plans)


def worth(terms, equivalents, steps, plans, objective):
    """The objective, summed up by hand."""
    trained = {
        name: frozenset(u for u, level in zip(UNITS, levels, strict=True) if level.is_trained)
        for name, levels in plans.items()
    }
    gains = []
    for term in terms:
        coming = help_from_others(term.name, steps, equivalents, trained)
        gain = term.gain.beside(coming)
        at = np.array([steps[term.name]])
        gains.append(term.weight * float(gain(plans[term.name], at)[0]))
    return sum(gains) if objective == "sum" else min(gains)


def test_a_cheap_helper_gets_the_steps():
    """Of no worth in itself, ten times cheaper, each step stands for .8 of one of the other."""
    terms = [task("main"), task("helper", cost=0.1, weight=0.01)]
    helping = {("helper", "main"): {"low": 0.8}}
    limits, now = Limits(remaining=60), evenly(terms, 100)
    alone = allocate_coupled(terms, limits, {}, now)
    found = allocate_coupled(terms, limits, helping, now)
    assert found.solution.shares["helper"] > alone.solution.shares["helper"] + 0.2
    assert found.solution.plans["helper"] == (FULL, FULL)  # it helps by its low unit only
    assert found.value > alone.value


def test_a_task_that_harms_gets_fewer_steps_the_more_it_harms():
    terms = [task("a"), task("b"), task("c")]
    limits, now = Limits(remaining=90), evenly(terms, 100)
    shares = []
    for harm in (0.0, 0.3, 0.6):
        harming = {("c", k): {"head": -harm} for k in ("a", "b")} if harm else {}
        shares.append(allocate_coupled(terms, limits, harming, now).solution.shares["c"])
    assert shares[0] > shares[1] > shares[2]


def test_harm_in_a_unit_that_can_be_frozen_is_avoided_by_freezing_it():
    terms = [task("a"), task("b"), task("c", speed=0.02)]
    limits, now = Limits(remaining=600), evenly(terms, 100)
    harming = {("c", k): {"low": -0.6} for k in ("a", "b")}
    alone, found = (allocate_coupled(terms, limits, e, now).solution for e in ({}, harming))
    assert alone.plans["c"] == (FULL, FULL)
    assert found.plans["c"] == (FROZEN, FULL)


def test_without_equivalents_it_is_the_programme_of_tasks_alone():
    terms = [task("a"), task("b", cost=0.5)]
    limits = Limits(remaining=50)
    found = allocate_coupled(terms, limits, {}, evenly(terms, 80)).solution
    assert found.shares == allocate_tasks(terms, limits).shares


def some_tasks(rng):
    return [
        task(name, cost=cost, weight=weight, speed=speed)
        for name, cost, weight, speed in zip(
            "abc",
            rng.uniform(0.2, 2, 3),
            rng.uniform(0.2, 2, 3),
            rng.uniform(0.02, 0.3, 3),
            strict=True,
        )
    ]


def mixes(terms, budget, grid):
    """Steps and plans for all shares and plans, as many steps as the budget buys."""
    for i, j in product(range(grid + 1), repeat=2):
        if i + j <= grid:
            shares = dict(zip("abc", (i / grid, j / grid, (grid - i - j) / grid), strict=True))
            for levels in product(PLANS, repeat=3):
                plans = dict(zip("abc", levels, strict=True))
                each = [t.problem.evaluate(plans[t.name])[0] * shares[t.name] for t in terms]
                yield {name: share * budget / sum(each) for name, share in shares.items()}, plans


@pytest.mark.parametrize(
    ("objective", "typical", "most"), [("sum", 0.05, 0.2), ("worst", 0.06, 0.3)]
)
def test_close_to_the_best_of_all_mixes(objective, typical, most):
    rng, losses = np.random.default_rng(3), []
    for _ in range(6):
        terms = some_tasks(rng)
        pairs = [pair for pair in permutations("abc", 2) if rng.random() < 0.6]
        equivalents = {pair: {"low": rng.uniform(-0.5, 0.8)} for pair in pairs}
        found = allocate_coupled(
            terms, Limits(remaining=60), equivalents, evenly(terms, 60), objective=objective, grid=5
        )
        best = max(worth(terms, equivalents, *mix, objective) for mix in mixes(terms, 60, 5))
        losses.append((best - found.value) / abs(best))
    assert np.mean(losses) < typical
    assert max(losses) < most


@pytest.mark.parametrize("objective", ["sum", "worst"])
def test_its_value_is_the_objective_with_help(objective):
    terms = [task("a"), task("b", cost=0.5, speed=0.3)]
    helping = {("a", "b"): {"low": 0.4, "head": 0.1}, ("b", "a"): {"low": -0.2}}
    found = allocate_coupled(
        terms, Limits(remaining=50), helping, evenly(terms, 80), objective=objective
    )
    steps = {name: found.solution.steps * share for name, share in found.solution.shares.items()}
    assert found.value == pytest.approx(
        worth(terms, helping, steps, found.solution.plans, objective)
    )


def test_more_rounds_are_never_worse():
    terms = [task("a"), task("b", cost=0.5, speed=0.3), task("c", cost=2.0)]
    helping = {("a", "b"): {"low": 0.7}, ("c", "a"): {"low": -0.6}, ("b", "c"): {"low": 0.5}}
    limits, now = Limits(remaining=50), evenly(terms, 80)
    values = [allocate_coupled(terms, limits, helping, now, rounds=r).value for r in (1, 2, 4)]
    assert values == sorted(values)


def test_other_gains_are_refused():
    terms = [replace(task("a"), gain=None), task("b")]
    with pytest.raises(TypeError, match="'a' to be a ForecastGain"):
        allocate_coupled(terms, Limits(remaining=50), {}, evenly(terms, 10))


def seen(mean, error=0.1):
    return Contribution(mean, error, 9)


def test_own_steps_that_a_step_stands_for():
    pairs = {
        ("a", "a"): {"low": seen(2.0), "head": seen(2.0)},
        ("b", "b"): {"low": seen(1.0), "head": seen(0.05)},
        ("a", "b"): {"low": seen(3.0)},
        ("b", "a"): {"low": seen(-1.0), "head": seen(0.2)},
    }
    found = step_equivalents(pairs, ["a", "b"])
    assert found["a", "b"] == {"low": 1.0}  # no more than one step
    assert found["b", "a"] == {"low": pytest.approx(-0.2)}  # the sum's sign decides, and its units


@pytest.mark.parametrize(
    ("own", "cross"),
    [
        (seen(4.0), seen(0.05)),
        (seen(0.05), seen(1.0)),
        (seen(-4.0), seen(1.0)),
        (seen(4.0), seen(1.0, np.inf)),
    ],
    ids=["cross in its error", "own in its error", "nothing to gain", "one estimate"],
)
def test_what_lies_within_its_error_stands_for_nothing(own, cross):
    assert (
        step_equivalents({("b", "b"): {"low": own}, ("a", "b"): {"low": cross}}, ["a", "b"]) == {}
    )
