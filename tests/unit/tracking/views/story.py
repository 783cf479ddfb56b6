"""A made-up run of two tasks and two epochs, with every kind of event, and the scalars it means."""

from dataclasses import replace

from lightning_attnbal.core import Dimension, Plan, UnitKind
from lightning_attnbal.tracking import (
    AffinityMeasured,
    AttentionMeasured,
    CacheUsed,
    ContributionMeasured,
    CostSpent,
    Environment,
    FrontierPoint,
    FrontierSolved,
    LoadMeasured,
    Notice,
    PlanDecided,
    RunEnded,
    RunStarted,
    ScoresMeasured,
    SharesDecided,
    TasksServed,
    TimeSpent,
    UnitInfo,
)

UNITS = ("layer.0", "<script>alert(1)</script>", "head")


def plan(levels, task="main", **fields):
    return Plan(dict(zip(UNITS, levels, strict=True)), task=task, **fields)


def started():
    return RunStarted(
        budget="40% of the full run",
        dimension=Dimension.FLOP,
        seed=7,
        units=tuple(
            UnitInfo(name=name, index=i, kind=UnitKind.BLOCK, num_parameters=10)
            for i, name in enumerate(UNITS)
        ),
        environment=Environment(
            attnbal="0.1.0",
            python="3.11.7",
            torch="2.14.1",
            lightning="2.6.6",
            platform="Linux",
            device="cpu",
            num_threads=1,
        ),
        started_at="2026-01-01T00:00:00+00:00",
    )


def first_epoch():
    return [
        started(),
        CostSpent(step=5, spent=10.0, planned=9.0, seconds=1.0, flops=10.0, learning_rate=0.25),
        LoadMeasured(
            step=8,
            flops=dict(zip(UNITS, (1.0, 5.0, 2.0), strict=True)),
            seconds={},
            saved_bytes={"head": 64},
            reference_cost=250.0,
        ),
        ContributionMeasured(step=8, values={"layer.0": 0.25, "head": 0.5}, cost=1.0),
        FrontierSolved(
            step=8,
            points=(
                FrontierPoint(plan="full: head", cost=1.0, value=0.5, steps=80),
                FrontierPoint(plan="full: all", cost=4.0, value=0.75, steps=20, is_chosen=True),
            ),
        ),
        PlanDecided(
            step=8,
            plan=plan(
                ("cached", "frozen", "full"),
                cost_per_step=2.0,
                value=0.5,
                shadow_price=0.125,
                lr_factor=2.0,
                forecast=(0.5, 0.125),
                reasons={"head": "0.25 per FLOP against λ = 0.125"},
            ),
            spent=20.0,
            remaining=80.0,
            changes=("layer.0: full → cached",),
            reason="it pays",
            probe_flops=3.0,
        ),
        AttentionMeasured(
            step=10, entropy={"layer.0": (0.75, 0.25)}, importance={"layer.0": (0.5, 0.5)}
        ),
        ScoresMeasured(step=10, scores={"val/accuracy": 0.5}),
    ]


def second_epoch():
    return [
        SharesDecided(
            step=12, epoch=1, shares={"a": 0.75, "b": 0.25}, batches={"a": 3, "b": 1}, rule="fixed"
        ),
        TasksServed(
            step=15,
            epoch=1,
            batches={"a": 12, "b": 3},
            spent={"a": 40.0, "b": 10.0},
            losses={"a": 0.5, "b": float("nan")},
        ),
        AffinityMeasured(step=15, epoch=1, tasks=("a", "b"), affinity=((1.0, -0.25), (0.125, 1.0))),
        TimeSpent(step=15, epoch=1, seconds={"forward": 1.5, "data": 0.25}),
        CacheUsed(
            step=15,
            epoch=1,
            rows=96,
            rows_read=72,
            stored_rows=32,
            ram_bytes=64,
            disk_bytes=64,
            bytes_read=512,
            seconds_read=0.25,
            flops_saved=8.0,
            audits=1,
            largest_error=0.0,
        ),
        PlanDecided(
            step=15,
            epoch=1,
            plan=plan(("frozen", "full", "full"), task="b", cost_per_step=4.0, value=1.0),
            spent=50.0,
            remaining=50.0,
        ),
        CostSpent(step=20, epoch=1, spent=75.0, planned=70.0, seconds=4.0, flops=75.0),
        ScoresMeasured(step=20, epoch=1, scores={"val/accuracy": 0.75}),
        Notice(step=20, epoch=1, text="nothing more to gain"),
        RunEnded(step=20, epoch=2, why="no gain left", spent=75.0, limit=100.0),
    ]


def story():
    """The stream as a recorder stamps it, ten minutes an event."""
    events = first_epoch() + second_epoch()
    return [replace(e, sequence=i, elapsed_seconds=600.0 * i) for i, e in enumerate(events)]


SCALARS = {
    ("attnbal/budget/spent", 5): 10.0,
    ("attnbal/budget/planned", 5): 9.0,
    ("attnbal/budget/seconds", 5): 1.0,
    ("attnbal/budget/flops", 5): 10.0,
    ("attnbal/plan/learning_rate", 5): 0.25,
    ("attnbal/load/reference_cost", 8): 250.0,
    ("attnbal/load/largest_cost_share", 8): 0.625,
    ("attnbal/load/saved_bytes", 8): 64.0,
    ("attnbal/load/contribution", 8): 0.75,
    ("attnbal/load/probe_flops", 8): 3.0,
    ("attnbal/plan/cost_per_step", 8): 2.0,
    ("attnbal/plan/value_per_step", 8): 0.5,
    ("attnbal/plan/num_trained", 8): 1.0,
    ("attnbal/plan/num_cached", 8): 1.0,
    ("attnbal/plan/num_changes", 8): 1.0,
    ("attnbal/plan/lr_factor", 8): 2.0,
    ("attnbal/budget/shadow_price", 8): 0.125,
    ("attnbal/budget/limit", 8): 100.0,
    ("attnbal/forecast/mean", 8): 0.5,
    ("attnbal/forecast/std", 8): 0.125,
    ("attnbal/forecast/low", 8): 0.25,
    ("attnbal/forecast/high", 8): 0.75,
    ("attnbal/attention/entropy_mean", 10): 0.5,
    ("attnbal/attention/entropy_min", 10): 0.25,
    ("attnbal/task/share/a", 12): 0.75,
    ("attnbal/task/share/b", 12): 0.25,
    ("attnbal/task/batches/a", 15): 12.0,
    ("attnbal/task/batches/b", 15): 3.0,
    ("attnbal/task/spent/a", 15): 40.0,
    ("attnbal/task/spent/b", 15): 10.0,
    ("attnbal/task/loss/a", 15): 0.5,
    ("attnbal/task/affinity/a/b", 15): -0.25,
    ("attnbal/task/affinity/b/a", 15): 0.125,
    ("attnbal/time/forward", 15): 1.5,
    ("attnbal/time/data", 15): 0.25,
    ("attnbal/load/cache_read_share", 15): 0.75,
    ("attnbal/load/cache_bytes", 15): 128.0,
    ("attnbal/load/cache_flops_saved", 15): 8.0,
    ("attnbal/load/probe_flops/b", 15): 0.0,
    ("attnbal/plan/cost_per_step/b", 15): 4.0,
    ("attnbal/plan/value_per_step/b", 15): 1.0,
    ("attnbal/plan/num_trained/b", 15): 2.0,
    ("attnbal/plan/num_cached/b", 15): 0.0,
    ("attnbal/plan/num_changes/b", 15): 0.0,
    ("attnbal/plan/lr_factor/b", 15): 1.0,
    ("attnbal/budget/shadow_price/b", 15): 0.0,
    ("attnbal/budget/limit", 15): 100.0,
    ("attnbal/budget/spent", 20): 75.0,
    ("attnbal/budget/planned", 20): 70.0,
    ("attnbal/budget/seconds", 20): 4.0,
    ("attnbal/budget/flops", 20): 75.0,
    ("attnbal/budget/share", 20): 0.75,
    ("attnbal/budget/limit", 20): 100.0,
    ("attnbal/budget/saved", 20): 175.0,
}
"""(key, optimizer step) → value, as anybody can work it out from the events above."""

WHITE = (
    b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x00\x01\x00\x00\x00\x01\x08\x02\x00\x00\x00"
    b"\x90wS\xde\x00\x00\x00\x0cIDATx\x9cc\xf8\xff\xff?\x00\x05\xfe\x02\xfe\r\xefF\xb8"
    b"\x00\x00\x00\x00IEND\xaeB`\x82"
)
"""One white pixel, as PNG."""


def draw_white(events):
    """Figures without the drawing."""
    return {"plan": WHITE, "budget": WHITE}
