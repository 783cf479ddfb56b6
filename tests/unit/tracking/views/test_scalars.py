"""The numbers that loggers draw are those of the events."""

import math

import pytest

from lightning_attnbal.core import Plan
from lightning_attnbal.tracking import (
    AttentionMeasured,
    CacheUsed,
    CostSpent,
    LoadMeasured,
    PlanDecided,
    RunEnded,
)
from lightning_attnbal.tracking.views import Key, ScalarReader, step_metric
from tests.unit.tracking.views.story import SCALARS, story

MEDIA = (Key.UNITS, Key.DECISIONS, Key.FIGURE, Key.QUALITY, Key.STEP, Key.EPOCH)


def test_every_event_gives_the_values_it_holds():
    reader = ScalarReader()
    read = [(event.step, reader(event)) for event in story()]
    assert {(key, step): value for step, found in read for key, value in found.items()} == SCALARS
    assert {type(key) for _, found in read for key in found} == {str}


def test_every_key_is_logged_by_some_event():
    logged = {key for key, _ in SCALARS}
    absent = [
        key
        for key in Key
        if key not in MEDIA
        and key not in logged
        and not any(k.startswith(f"{key}/") for k in logged)
    ]
    assert absent == []


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        (Key.BUDGET_SPENT, Key.STEP),
        (Key.TASK_LOSS.of("a"), Key.STEP),
        (Key.TIME.of("data"), Key.STEP),
        (Key.ATTENTION_LOWEST, Key.EPOCH),
        (Key.UNITS, Key.EPOCH),
        (Key.FIGURE.of("plan"), Key.EPOCH),
    ],
)
def test_each_key_is_drawn_against_steps_or_epochs(key, expected):
    assert step_metric(key) is expected


def test_one_task_needs_no_name():
    assert Key.PLAN_COST.of_task("main") == "attnbal/plan/cost_per_step"
    assert Key.PLAN_COST.of_task("news") == "attnbal/plan/cost_per_step/news"


@pytest.mark.parametrize("limit", [math.inf, math.nan, 0.0])
def test_a_run_without_a_limit_has_no_share(limit):
    reader = ScalarReader()
    plan = Plan({"head": "full"})
    assert Key.BUDGET_LIMIT not in reader(PlanDecided(plan=plan, spent=0.0, remaining=limit))
    read = reader(RunEnded(why="over", spent=3.0, limit=limit))
    assert read == {Key.BUDGET_SPENT: 3.0}


def test_a_plan_that_nobody_solved_for_has_no_price():
    read = ScalarReader()(PlanDecided(plan=Plan({"head": "full"}), spent=0.0, remaining=0.0))
    assert read.keys().isdisjoint({Key.PLAN_COST, Key.PLAN_VALUE, Key.BUDGET_SHADOW_PRICE})
    assert read[Key.PLAN_TRAINED] == 1


@pytest.mark.parametrize(
    "event",
    [
        LoadMeasured(flops={}, seconds={}, saved_bytes={}, reference_cost=math.nan),
        LoadMeasured(flops={"a": 0.0}, seconds={}, saved_bytes={}, reference_cost=math.inf),
        AttentionMeasured(entropy={}, importance={}),
        AttentionMeasured(entropy={"a": (math.nan,)}, importance={}),
        CostSpent(spent=math.nan, planned=math.nan, seconds=math.nan, flops=math.nan),
    ],
    ids=["nothing", "no FLOPs", "no layer", "no entropy", "no account"],
)
def test_what_is_not_finite_is_left_out(event):
    assert all(math.isfinite(value) for value in ScalarReader()(event).values())
    assert set(ScalarReader()(event)) <= {Key.LOAD_SAVED_BYTES}


def test_an_unused_cache_has_no_share():
    used = CacheUsed(
        rows=0,
        rows_read=0,
        stored_rows=0,
        ram_bytes=0,
        disk_bytes=0,
        bytes_read=0,
        seconds_read=0.0,
        flops_saved=0.0,
        audits=0,
        largest_error=0.0,
    )
    assert Key.LOAD_CACHE_READ not in ScalarReader()(used)
