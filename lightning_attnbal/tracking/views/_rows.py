"""From events to the rows of tables: what each unit costs, is worth and got; what was decided."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from lightning_attnbal.tracking._event import Event
from lightning_attnbal.tracking._events import ContributionMeasured, LoadMeasured, PlanDecided


@dataclass(frozen=True, kw_only=True)
class UnitRow:
    """A unit at the end of an epoch.

    Args:
        epoch: zero-based.
        task: name of the task.
        unit: name of the unit.
        level: as text.
        cost_share: of the FLOPs of a step in which everything trains, in [0, 1]; NaN if unknown.
        contribution: estimated decrease of the loss per step; NaN if unknown.
        reason: why it got its level.

    Example:
        >>> UnitRow(
        ...     epoch=0, task="main", unit="head", level="full", cost_share=0.25, contribution=0.5,
        ...     reason="0.5 per GFLOP against λ = 0.1",
        ... ).level
        'full'
    """

    epoch: int
    task: str
    unit: str
    level: str
    cost_share: float
    contribution: float
    reason: str


@dataclass(frozen=True, kw_only=True)
class DecisionRow:
    """A decision of an epoch.

    Args:
        epoch: zero-based.
        step: optimizer steps taken by then.
        task: name of the task.
        plan: in words.
        changes: against the plan before, with their reasons, as text.
        reason: why this plan and not another.

    Example:
        >>> DecisionRow(
        ...     epoch=0, step=8, task="main", plan="full: head", changes="", reason="it pays",
        ... ).step
        8
    """

    epoch: int
    step: int
    task: str
    plan: str
    changes: str
    reason: str


def unit_rows(events: Sequence[Event], epoch: int) -> tuple[UnitRow, ...]:
    """Every unit with its latest level, cost and contribution, tasks in order, units forward.

    Args:
        events: the stream up to the end of the epoch.
        epoch: to write into the rows, zero-based.

    Example:
        >>> from lightning_attnbal.core import Plan
        >>> plan = Plan({"layer.0": "frozen", "head": "full"}, reasons={"head": "cheap"})
        >>> [(row.unit, row.level, row.reason) for row in unit_rows(
        ...     [PlanDecided(plan=plan, spent=0.0, remaining=9.0)], epoch=3
        ... )]
        [('layer.0', 'frozen', ''), ('head', 'full', 'cheap')]
    """
    plans = {event.plan.task: event.plan for event in events if isinstance(event, PlanDecided)}
    loads = [event.flops for event in events if isinstance(event, LoadMeasured)]
    costs = loads[-1] if loads else {}
    total = sum(costs.values()) or math.nan
    worth = {
        (event.task, unit): value
        for event in events
        if isinstance(event, ContributionMeasured)
        for unit, value in event.values.items()
    }
    return tuple(
        UnitRow(
            epoch=epoch,
            task=task,
            unit=unit,
            level=str(level),
            cost_share=costs.get(unit, math.nan) / total,
            contribution=worth.get((task, unit), math.nan),
            reason=plan.reasons.get(unit, ""),
        )
        for task, plan in plans.items()
        for unit, level in plan.items()
    )


def decision_rows(events: Sequence[Event]) -> tuple[DecisionRow, ...]:
    """The decisions among `events`, in order.

    Example:
        >>> from lightning_attnbal.core import Plan
        >>> plan = Plan({"head": "full"})
        >>> event = PlanDecided(step=8, plan=plan, spent=0.0, remaining=9.0, reason="it pays")
        >>> decision_rows([event])[0].reason
        'it pays'
    """
    return tuple(
        DecisionRow(
            epoch=event.epoch,
            step=event.step,
            task=event.plan.task,
            plan=str(event.plan),
            changes="\n".join(event.changes),
            reason=event.reason,
        )
        for event in events
        if isinstance(event, PlanDecided)
    )
