"""The bottleneck and the critical path."""

from __future__ import annotations

from lightning_attnbal.core import LevelKind, Plan
from lightning_attnbal.tracking._events import (
    ContributionMeasured,
    LoadMeasured,
    PlanDecided,
    RunStarted,
)
from lightning_attnbal.tracking.charts._drawing import Table
from lightning_attnbal.tracking.charts._load import shares_of
from lightning_attnbal.tracking.charts._stream import Stream

_MAX_UNITS = 12


def costliest(stream: Stream) -> Table | None:
    """The units that cost most in a step that trains everything, with what they give."""
    load = stream.last(LoadMeasured)
    if load is None or sum(load.flops.values()) <= 0:
        return None
    costs, worth = shares_of(load.flops), shares_of(_worth(stream))
    sizes = _sizes(stream)
    plan = _last_plan(stream)
    order = sorted(load.flops, key=load.flops.__getitem__, reverse=True)[:_MAX_UNITS]
    rows = [
        (
            unit,
            f"{sizes[unit]:,}" if unit in sizes else "–",
            f"{costs[unit]:.1%}",
            f"{1e3 * load.seconds[unit]:.3g}" if unit in load.seconds else "–",
            f"{worth[unit]:.1%}" if unit in worth else "–",
            str(plan[unit]) if plan and unit in plan else "–",
        )
        for unit in order
    ]
    header = ("unit", "parameters", "of the FLOPs", "ms per step", "of the contribution", "level")
    return Table(header, rows)


def critical_path(stream: Stream) -> list[str]:
    """Sentences on the longest chain of units that wait for one another.

    The stream knows units in forward order, not the branches between them: the chain is all of
    them forward, then back from the last to the lowest that trains.
    """
    load, plan = stream.last(LoadMeasured), _last_plan(stream)
    if load is None or not load.flops:
        return []
    units, shares = list(load.flops), shares_of(load.flops)
    said = [
        f"The record knows units in forward order, not the branches between them. So far as it "
        f"tells, the longest dependent chain of a full step is {_span(units)}, and back."
    ]
    heaviest = max(shares, key=shares.__getitem__, default=None)
    if heaviest is not None:
        said.append(f"Its dearest link is {heaviest}, {shares[heaviest]:.1%} of the FLOPs.")
    if plan is not None and plan.trained:
        said += _under_plan(plan, [unit for unit in units if unit in plan])
    return said


def _under_plan(plan: Plan, units: list[str]) -> list[str]:
    """How long the chain is with the last plan."""
    lowest = next(i for i, unit in enumerate(units) if plan[unit].is_trained)
    forward = [unit for unit in units if plan[unit].kind is not LevelKind.CACHED]
    back = [unit for unit in units[lowest:] if plan[unit].kind is not LevelKind.DETACHED]
    return [
        f"With the last plan it is {len(forward)} of {len(units)} units forward, and {len(back)} "
        f"back to the lowest that trains, {units[lowest]}."
    ]


def _span(units: list[str]) -> str:
    return units[0] if len(units) == 1 else f"{units[0]} … {units[-1]} ({len(units)} units)"


def _last_plan(stream: Stream) -> Plan | None:
    decided = stream.last(PlanDecided)
    return None if decided is None else decided.plan


def _sizes(stream: Stream) -> dict[str, int]:
    started = stream.last(RunStarted)
    return {unit.name: unit.num_parameters for unit in started.units} if started else {}


def _worth(stream: Stream) -> dict[str, float]:
    """The latest contributions of the task that was measured last."""
    return {
        unit: value
        for event in stream.all(ContributionMeasured)
        for unit, value in event.values.items()
    }
