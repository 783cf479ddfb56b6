"""Made-up event streams with everything in them."""

import math
import random
from dataclasses import replace

from lightning_attnbal.core import Dimension, Plan, UnitKind
from lightning_attnbal.tracking import (
    AffinityMeasured,
    AttentionMeasured,
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

ENVIRONMENT = Environment(
    attnbal="0.1.0",
    python="3.11.7",
    torch="2.14.1",
    lightning="2.6.6",
    platform="Linux",
    device="cpu",
    num_threads=1,
)
LIMIT = 1e15
SECONDS = {
    "forward": 40.0,
    "activation_gradient": 22.0,
    "weight_gradient": 30.0,
    "optimizer": 6.0,
    "data": 4.0,
    "cache": 1.5,
    "probes": 2.0,
    "decisions": 0.5,
    "validation": 9.0,
    "other": 3.0,
}


def make_stream(
    units=("embeddings", "layer.0", "layer.1", "head"), epochs=3, tasks=("main",), quality=0.5
):
    """A run of `epochs` epochs that thaws one unit more per epoch and task; always the same."""
    chance = random.Random(0)
    events = [_started(units), _load(units, epochs)]
    for epoch in range(epochs):
        done = epoch / epochs
        where = {"epoch": epoch, "step": 10 * epoch}
        for i, task in enumerate(tasks):
            events += _decided(units, task, done, (epoch + i) % len(units), where, chance)
        if len(tasks) > 1:
            events += _between_tasks(tasks, done, where)
        events += _epoch_end(units, epoch, epochs, quality, where)
    events += [
        TimeSpent(seconds=SECONDS),
        Notice(step=3, text="cache refilled"),
        RunEnded(step=10 * epochs, why="budget spent", spent=0.99 * LIMIT, limit=LIMIT),
    ]
    return [replace(event, sequence=i, elapsed_seconds=1.0 * i) for i, event in enumerate(events)]


def _started(units):
    infos = tuple(
        UnitInfo(name=unit, index=i, kind=UnitKind.BLOCK, num_parameters=1000 * (i + 1))
        for i, unit in enumerate(units)
    )
    return RunStarted(
        budget="40% of the full run",
        dimension=Dimension.FLOP,
        seed=0,
        units=infos,
        environment=ENVIRONMENT,
        started_at="2026-01-01T00:00:00+00:00",
    )


def _load(units, epochs):
    return LoadMeasured(
        flops={unit: 1e9 * (i + 1) for i, unit in enumerate(units)},
        seconds={unit: 1e-3 * (i + 1) for i, unit in enumerate(units)},
        saved_bytes=dict.fromkeys(units, 2**20),
        reference_cost=2.5 * LIMIT,
    )


def _decided(units, task, done, num_frozen, where, chance):
    levels = {
        unit: "frozen" if i < num_frozen else ("lora8" if i % 5 == 4 else "full")
        for i, unit in enumerate(units)
    }
    reasons = {unit: f"{level}: 0.04 per GFLOP against λ = 0.03" for unit, level in levels.items()}
    plan = Plan(levels, task=task, reasons=reasons, cost_per_step=2e9, method="frontier")
    points = tuple(
        FrontierPoint(
            plan=f"full: the last {i + 1}",
            cost=1e9 * (i + 1),
            value=math.sqrt(i + 1),
            steps=100 / (i + 1),
            loss=0.5 + 0.02 * (i - 3) ** 2,
            error=0.03,
            is_chosen=i == 3,
        )
        for i in range(7)
    )
    return [
        ContributionMeasured(
            values={unit: chance.random() for unit in units}, cost=0.0, task=task, **where
        ),
        FrontierSolved(points=points, task=task, **where),
        PlanDecided(
            plan=plan,
            spent=done * LIMIT,
            remaining=(1 - done) * LIMIT,
            changes=tuple(f"{unit}: full → frozen: {reasons[unit]}" for unit in units[:3]),
            reason="epoch end; frontier: best forecast",
            why="epoch end",
            costs={unit: 1e9 * (3 if level.is_trained else 1) for unit, level in plan.items()},
            **where,
        ),
    ]


def _between_tasks(tasks, done, where):
    share = 1 / len(tasks)
    return [
        SharesDecided(
            shares=dict.fromkeys(tasks, share),
            batches=dict.fromkeys(tasks, 4),
            reasons=dict.fromkeys(tasks, "falls fastest"),
            rule="equal",
            **where,
        ),
        TasksServed(
            batches=dict.fromkeys(tasks, 4),
            spent=dict.fromkeys(tasks, done * share),
            losses=dict.fromkeys(tasks, 0.5),
            **where,
        ),
        AffinityMeasured(
            tasks=tuple(tasks),
            affinity=tuple(
                tuple(1.0 if i == k else 0.3 - 0.1 * abs(i - k) for k in range(len(tasks)))
                for i in range(len(tasks))
            ),
            **where,
        ),
    ]


def _epoch_end(units, epoch, epochs, quality, where):
    end = {"epoch": epoch, "step": where["step"] + 9}
    spent = LIMIT * (epoch + 0.99) / epochs
    return [
        CostSpent(
            spent=spent,
            planned=1.02 * spent,
            seconds=10.0 * (epoch + 1),
            flops=spent,
            learning_rate=1e-3 * (1 - spent / LIMIT),
            **end,
        ),
        ScoresMeasured(
            scores={"val/accuracy": quality + 0.1 * epoch / epochs, "val/loss": 1 / (1 + epoch)},
            **end,
        ),
        AttentionMeasured(
            entropy=dict.fromkeys(units[1:-1], (0.8, 0.3, 0.05, 0.6)),
            importance=dict.fromkeys(units[1:-1], (0.5, 0.5, 0.1, 0.7)),
            **end,
        ),
    ]
