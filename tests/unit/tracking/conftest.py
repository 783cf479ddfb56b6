"""A small run, as events."""

import pytest

from lightning_attnbal.core import Dimension, Plan, UnitKind
from lightning_attnbal.tracking import (
    CacheUsed,
    ContributionMeasured,
    CostSpent,
    Environment,
    LoadMeasured,
    Notice,
    PlanDecided,
    RunEnded,
    RunStarted,
    UnitInfo,
)

UNITS = ("embeddings", "layer.0", "layer.1", "head")
KINDS = (UnitKind.EMBEDDING, UnitKind.BLOCK, UnitKind.BLOCK, UnitKind.HEAD)
PLANS = (("cached", "frozen", "full", "full"), ("cached", "lora4", "full", "full"))


def make_plan(levels, task="main"):
    return Plan(dict(zip(UNITS, levels, strict=True)), cost_per_step=2.0, num_steps=40, task=task)


@pytest.fixture
def environment():
    return Environment(
        attnbal="0.1.0",
        python="3.11.7",
        torch="2.14.1",
        lightning="2.6.6",
        platform="Linux",
        device="cpu",
        num_threads=1,
    )


@pytest.fixture
def run(environment):
    """Two epochs under a budget of 100 FLOPs, 90 of them spent."""
    units = tuple(
        UnitInfo(name=name, index=i, kind=kind, num_parameters=1000 * (i + 1))
        for i, (name, kind) in enumerate(zip(UNITS, KINDS, strict=True))
    )
    first, second = map(make_plan, PLANS)
    return [
        RunStarted(
            budget="40% of the full run",
            dimension=Dimension.FLOP,
            seed=7,
            units=units,
            environment=environment,
            started_at="2026-01-01T00:00:00+00:00",
        ),
        LoadMeasured(
            flops=dict(zip(UNITS, (0.0, 4.0, 4.0, 2.0), strict=True)),
            seconds={},
            saved_bytes={"layer.0": 64},
            reference_cost=250.0,
        ),
        CacheUsed(
            step=8,
            rows=96,
            rows_read=64,
            stored_rows=32,
            ram_bytes=2**20,
            disk_bytes=0,
            bytes_read=2**21,
            seconds_read=0.002,
            flops_saved=3e9,
            audits=1,
            largest_error=1e-7,
            problems=("the disk is full",),
        ),
        ContributionMeasured(step=2, values={"layer.0": 0.1, "head": 0.5}, cost=1.0),
        PlanDecided(step=2, plan=first, spent=10.0, remaining=90.0, reason="first"),
        CostSpent(step=20, spent=50.0, planned=48.0, seconds=5.0, flops=50.0, learning_rate=0.1),
        PlanDecided(
            step=20,
            epoch=1,
            plan=second,
            spent=50.0,
            remaining=50.0,
            changes=tuple(map(str, second.diff(first))),
            reason="deeper pays",
        ),
        ContributionMeasured(step=30, epoch=1, values={"layer.0": 0.2}, cost=1.0),
        CostSpent(step=40, epoch=1, spent=90.0, planned=87.0, seconds=9.0, flops=90.0),
        Notice(step=40, epoch=1, text="nothing more to gain – «stopped»"),
        RunEnded(step=40, epoch=1, why="no gain left", spent=90.0, limit=100.0),
    ]
