"""What units cost, and what training them is worth."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean

import altair as alt

from lightning_attnbal.tracking._events import ContributionMeasured, LoadMeasured, PlanDecided
from lightning_attnbal.tracking.charts._drawing import (
    CHARACTERS,
    Canvas,
    Chart,
    Drawing,
    Row,
    Table,
    data,
    described,
    sized,
    stack_tasks,
)
from lightning_attnbal.tracking.charts._stream import Stream
from lightning_attnbal.tracking.charts._style import BLUE, EDGE, ORANGE, row_axis, shades
from lightning_attnbal.tracking.charts._thin import Block, block_units, chunk

_MAX_ROWS = 36


def draw_load(stream: Stream, canvas: Canvas) -> Drawing | None:
    """Each unit's share of the cost beside its share of the contribution."""
    load = stream.last(LoadMeasured)
    if load is None or sum(load.flops.values()) <= 0:
        return None
    measures = {"cost": shares_of(load.flops), "contribution": shares_of(_latest(stream))}
    blocks = block_units(list(load.flops), _MAX_ROWS, CHARACTERS)
    rows = [
        _share_row(block, what, shares)
        for block in blocks
        for what, shares in measures.items()
        if shares
    ]
    chart = _dumbbells(rows, blocks, canvas)
    by_place = {(row["row"], row["what"]): f"{row['share']:.1%}" for row in rows}
    table = [
        (b.name, by_place[b.label, "cost"], by_place.get((b.label, "contribution"), "–"))
        for b in blocks
    ]
    caption = (
        "Share of the FLOPs of a step that trains everything, and of the latest contributions. "
        "Far right of its circle, a diamond marks a unit that gives more than it costs."
    )
    header = ("unit", "cost", "contribution")
    return Drawing("Cognitive load", caption + _grouped(blocks), chart, Table(header, table))


def draw_contribution(stream: Stream, canvas: Canvas) -> Drawing | None:
    """What training each unit was worth, as each decision measured it; a panel per task."""
    seen = [_Seen(e.task, e.step, e.values) for e in stream.all(ContributionMeasured)]
    words = _Words(
        title="Contribution of each unit",
        caption="Estimated decrease of the loss from training a unit for a step, at each decision.",
        unit="loss per step",
        column="contribution at each decision",
    )
    return _heat_maps(seen, words, canvas)


def draw_cost(stream: Stream, canvas: Canvas) -> Drawing | None:
    """What each unit cost under the plan, decision by decision; a panel per task."""
    plans = [event for event in stream.all(PlanDecided) if event.costs]
    seen = [_Seen(e.plan.task, e.step, {u: c / 1e9 for u, c in e.costs.items()}) for e in plans]
    words = _Words(
        title="Cost of each unit",
        caption="GFLOP of a batch in each unit under the plan that was decided on.",
        unit="GFLOP per batch",
        column="GFLOP per batch at each decision",
    )
    return _heat_maps(seen, words, canvas)


@dataclass(frozen=True, slots=True)
class _Seen:
    """What a decision knew of the units of a task."""

    task: str
    step: int
    values: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Words:
    """What a heat map says."""

    title: str
    caption: str
    unit: str
    column: str


def _heat_maps(seen: list[_Seen], words: _Words, canvas: Canvas) -> Drawing | None:
    """Units × decisions, yellow is most; a panel per task."""
    measured = [event for event in seen if event.values]
    if not measured:
        return None
    tasks = list(dict.fromkeys(event.task for event in measured))
    units = list(dict.fromkeys(unit for event in measured for unit in event.values))
    blocks = block_units(units, max(8, 2 * _MAX_ROWS // (len(tasks) + 1)), CHARACTERS)
    room = max(4, min(60, canvas.max_marks // (len(tasks) * len(blocks))))
    panels = {
        task: _cells([event for event in measured if event.task == task], blocks, room)
        for task in tasks
    }
    every = [row for rows in panels.values() for row in rows]
    title = words.unit
    drawn = {
        task: _heat_map(rows, (every, title), blocks, canvas)
        for task, rows in panels.items()
        if rows
    }
    if not drawn:
        return None
    chart = stack_tasks(drawn)
    caption = f"{words.caption} Yellow is most.{_grouped(blocks)}"
    table = [
        (task, block.name, " → ".join(_number(row["value"]) for row in rows))
        for task in tasks
        for block in blocks
        if (rows := [row for row in panels[task] if row["row"] == block.label])
    ]
    header = ("task", "unit", words.column)
    return Drawing(words.title, caption, chart, Table(header, table))


def shares_of(values: Mapping[str, float]) -> dict[str, float]:
    """Each value over the sum; what is below zero or not a number counts as zero.

    Example:
        >>> shares_of({"a": 3.0, "b": 1.0, "c": -2.0})
        {'a': 0.75, 'b': 0.25, 'c': 0.0}
    """
    clean = {name: value if value > 0 else 0.0 for name, value in values.items()}
    total = sum(clean.values())
    return {name: value / total for name, value in clean.items()} if total > 0 else {}


def _latest(stream: Stream) -> dict[str, float]:
    """The latest contributions, summed over tasks."""
    by_task: dict[str, dict[str, float]] = {}
    for event in stream.all(ContributionMeasured):
        by_task.setdefault(event.task, {}).update(event.values)
    units = {unit for values in by_task.values() for unit in values}
    return {
        unit: math.fsum(max(0.0, values.get(unit, 0.0)) for values in by_task.values())
        for unit in units
    }


def _share_row(block: Block, what: str, shares: Mapping[str, float]) -> Row:
    share = math.fsum(shares.get(unit, 0.0) for unit in block.members)
    text = f"{block.name} · {what} {share:.1%} of all"
    return {"row": block.label, "what": what, "share": share, "text": text}


def _dumbbells(rows: list[Row], blocks: list[Block], canvas: Canvas) -> Chart:
    names = ["cost", "contribution"]
    y = row_axis([block.label for block in reversed(blocks)])
    x = alt.X(
        "share:Q",
        title="share of all units",
        axis=alt.Axis(format="%", tickCount=4),
        scale=alt.Scale(padding=6),
    )
    base = alt.Chart(data(rows))
    legend = alt.Legend(title=None)
    marks = base.mark_point(filled=True, size=70, opacity=1, stroke=EDGE, strokeWidth=0.5).encode(
        **described(
            x=x,
            y=y,
            color=alt.Color(
                "what:N", scale=alt.Scale(domain=names, range=[BLUE, ORANGE]), legend=legend
            ),
            shape=alt.Shape(
                "what:N", scale=alt.Scale(domain=names, range=["circle", "diamond"]), legend=legend
            ),
        )
    )
    bars = base.mark_line(color=EDGE, strokeWidth=1.5, aria=False).encode(x=x, y=y, detail="row:N")
    step = max(10, min(18, 420 // len(blocks)))
    return sized(alt.layer(bars, marks), canvas.plot_width, step * len(blocks))


def _cells(events: list[_Seen], blocks: list[Block], room: int) -> list[Row]:
    """The mean of each block of units over each group of neighbouring decisions."""
    rows: list[Row] = []
    for column, group in enumerate(chunk(events, room)):
        first, last = group[0].step, group[-1].step
        when = f"step {first}" if first == last else f"steps {first} to {last}"
        for block in blocks:
            values = [e.values[unit] for e in group for unit in block.members if unit in e.values]
            values = [value for value in values if math.isfinite(value)]
            if values:
                mean = fmean(values)
                text = f"{block.name} · {when} · {_number(mean)}"
                cell = {"row": block.label, "column": column, "when": f"{first:,}"}
                rows.append({**cell, "value": mean, "text": text})
    return rows


def _heat_map(
    rows: list[Row], scale: tuple[list[Row], str], blocks: list[Block], canvas: Canvas
) -> Chart:
    """One task's; `scale` is what the colours cover, and what they mean."""
    every, title = scale
    names = {row["column"]: row["when"] for row in rows}
    labels = alt.Axis(labels=False, ticks=False, domain=False, titleAnchor="start")
    span = f"decisions, step {next(iter(names.values()))} to {list(names.values())[-1]}"
    step = max(9, min(18, 420 // len(blocks)))
    chart = (
        alt.Chart(data(rows))
        .mark_rect(stroke=EDGE, strokeWidth=0.3)
        .encode(
            **described(
                x=alt.X("column:O", title=span, axis=labels),
                y=row_axis([block.label for block in reversed(blocks)]),
                color=shades("value", title, every),
            )
        )
    )
    return sized(chart, canvas.plot_width, step * len(blocks))


def _grouped(blocks: list[Block]) -> str:
    size = max(len(block.members) for block in blocks)
    return f" Up to {size} neighbouring units share a row." if size > 1 else ""


def _number(value: float) -> str:
    return f"{value:.3g}"
