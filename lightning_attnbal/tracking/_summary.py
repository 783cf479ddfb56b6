"""What a run spent and which layers got what, as a table in the terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from lightning_attnbal.tracking._event import Event
from lightning_attnbal.tracking._events import (
    CacheUsed,
    ContributionMeasured,
    LoadMeasured,
    RunEnded,
    RunStarted,
)
from lightning_attnbal.tracking._timeline import Timeline, build_timeline


def print_summary(events: Sequence[Event], console: Console | None = None) -> None:
    """Print the budget against what was planned and spent, and each unit's levels and shares.

    Columns: the unit; its parameters; its share of the FLOPs when everything trains; its levels
    with the % of the budget's limit over which it had them, in order; its last measured
    contribution (loss per step). A dash marks what was not recorded.

    Raises:
        ValueError: the stream holds no plan.

    Example:
        >>> from lightning_attnbal.core import Plan
        >>> from lightning_attnbal.tracking import PlanDecided, RunEnded
        >>> plan = Plan({"layer.0": "frozen", "head": "full"})
        >>> print_summary(
        ...     [
        ...         PlanDecided(plan=plan, spent=0.0, remaining=8.0),
        ...         RunEnded(why="budget spent", spent=6.0, limit=8.0),
        ...     ],
        ...     Console(width=70),
        ... )
        budget: 75.0% spent · budget spent
        unit     parameters  cost  levels      contribution
        ─────────────────────────────────────────────────────────
        layer.0           –     –  frozen 75%             –
        head              –     –  full 75%               –
    """
    timeline = build_timeline(events)
    out = Console() if console is None else console
    out.print(_headline(events, timeline), highlight=False, soft_wrap=True)
    for task in timeline.spans:
        out.print(_task_table(events, timeline, task))


def _headline(events: Sequence[Event], timeline: Timeline) -> str:
    parts = [f"{timeline.budget}: {timeline.spent_text}"]
    if not math.isnan(timeline.planned):
        parts.append(f"planned {timeline.planned / timeline.limit:.1%}")
    used = [event for event in events if isinstance(event, CacheUsed) and event.rows]
    parts += [f"cache read {event.rows_read / event.rows:.0%} of its rows" for event in used[-1:]]
    parts += [event.why for event in events if isinstance(event, RunEnded)]
    return " · ".join(parts)


def _task_table(events: Sequence[Event], timeline: Timeline, task: str) -> Table:
    title = f"task {task}" if len(timeline.spans) > 1 else None
    table = Table(title=title, box=SIMPLE_HEAD, show_edge=False)
    for name in ("unit", "parameters", "cost", "levels", "contribution"):
        is_number = name in {"parameters", "cost", "contribution"}
        table.add_column(name, justify="right" if is_number else "left")
    sizes, costs, worth = _sizes(events), _cost_shares(events), _contributions(events, task)
    for unit in timeline.units(task):
        table.add_row(
            unit,
            f"{sizes[unit]:,}" if unit in sizes else "–",
            f"{costs[unit]:.1%}" if unit in costs else "–",
            _history(timeline, task, unit),
            f"{worth[unit]:.3g}" if unit in worth else "–",
        )
    return table


def _history(timeline: Timeline, task: str, unit: str) -> str:
    """A unit's levels with the share of the limit each was held for: `frozen 60% → full 40%`."""
    spans = (span for span in timeline.spans[task] if span.unit == unit)
    return " → ".join(f"{span.level} {span.end - span.start:.0%}" for span in spans)


def _sizes(events: Sequence[Event]) -> dict[str, int]:
    started = (event for event in events if isinstance(event, RunStarted))
    return {unit.name: unit.num_parameters for event in started for unit in event.units}


def _cost_shares(events: Sequence[Event]) -> dict[str, float]:
    """Share of the FLOPs of a full step, from the latest measurement."""
    loads = [event.flops for event in events if isinstance(event, LoadMeasured)]
    if not loads:
        return {}
    total = sum(loads[-1].values())
    return {unit: flops / total for unit, flops in loads[-1].items()}


def _contributions(events: Sequence[Event], task: str) -> dict[str, float]:
    """The latest value of each unit."""
    measured = (e for e in events if isinstance(e, ContributionMeasured) and e.task == task)
    return {unit: value for event in measured for unit, value in event.values.items()}
