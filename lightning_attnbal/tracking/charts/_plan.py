"""Which unit had which level while the budget was spent."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import altair as alt

from lightning_attnbal.core import Level
from lightning_attnbal.tracking._events import PlanDecided
from lightning_attnbal.tracking._timeline import Timeline
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
from lightning_attnbal.tracking.charts._style import EDGE, FAINT, level_styles, row_axis, share_axis
from lightning_attnbal.tracking.charts._thin import Block, block_units, sample

_MAX_ROWS, _MIN_ROWS, _MAX_EPOCHS = 48, 8, 20


@dataclass(frozen=True)
class _Grid:
    """A task's plans as rows of units and slices of budget, shares of the limit."""

    task: str
    blocks: list[Block]
    edges: list[float]
    plans: list[tuple[float, PlanDecided]]

    def rows(self) -> list[Row]:
        """A bar for every stretch of a row at one level."""
        plans = [self._plan_at(start) for start in self.edges[:-1]]
        return [row for block in self.blocks for row in self._stretches(block, plans)]

    def _stretches(self, block: Block, plans: list[PlanDecided]) -> list[Row]:
        rows: list[Row] = []
        for (start, end), event in zip(pairwise(self.edges), plans, strict=True):
            counts = Counter(event.plan[unit] for unit in block.members if unit in event.plan)
            if not counts:
                continue
            what = _in_words(counts)
            if rows and rows[-1]["what"] == what and rows[-1]["end"] == start:
                rows[-1]["end"] = end
            else:
                level = str(max(counts, key=counts.__getitem__))
                why = _why(event, block)
                rows.append(
                    {"row": block.label, "start": start, "end": end, "level": level}
                    | {"what": what, "why": why, "name": block.name}
                )
        return [{**row, "text": _sentence(row)} for row in rows]

    def _plan_at(self, share: float) -> PlanDecided:
        place = bisect_right([start for start, _ in self.plans], share)
        return self.plans[max(0, place - 1)][1]


def draw_plan(stream: Stream, canvas: Canvas) -> Drawing | None:
    """Units in forward order from the bottom up against budget spent, one panel per task."""
    if stream.timeline is None:
        return None
    grids = [_grid(stream, task, canvas) for task in stream.timeline.spans]
    rows = [grid.rows() for grid in grids]
    chart = stack_tasks(
        {
            grid.task: _panel(grid, bars, stream.timeline, canvas)
            for grid, bars in zip(grids, rows, strict=True)
        }
    )
    caption = (
        "Units in forward order, the input at the bottom. Blue trains, grey rests; "
        "the thicker the bar, the dearer the level. Dotted lines: a new epoch."
    )
    return Drawing("The plan over the budget", caption + _note(grids, stream), chart, _table(rows))


def _grid(stream: Stream, task: str, canvas: Canvas) -> _Grid:
    timeline = stream.timeline
    assert timeline is not None  # the caller has seen one
    num_tasks = len(timeline.spans)
    max_rows = max(_MIN_ROWS, 2 * _MAX_ROWS // (num_tasks + 1))
    blocks = block_units(timeline.units(task), max_rows, CHARACTERS)
    plans = [(e.spent / timeline.limit, e) for e in stream.all(PlanDecided) if e.plan.task == task]
    end = max(timeline.spent / timeline.limit, plans[-1][0])
    starts = sorted({start for start, _ in plans if start < end})
    slices = max(4, canvas.max_marks // (num_tasks * len(blocks)))
    edges = [*starts, end] if starts else [0.0, max(end, 1e-9)]
    return _Grid(task, blocks, sample(edges, slices + 1), plans)


def _panel(grid: _Grid, rows: list[Row], timeline: Timeline, canvas: Canvas) -> Chart:
    styles = level_styles(span.level for spans in timeline.spans.values() for span in spans)
    color = alt.Color(
        "level:N",
        scale=alt.Scale(domain=list(styles), range=[color for color, _ in styles.values()]),
        legend=alt.Legend(title=None, symbolType="square"),
    )
    y = row_axis([block.label for block in reversed(grid.blocks)])
    x = share_axis(top=timeline.spent / timeline.limit)
    bars = [
        alt.Chart(data(some))
        .mark_bar(height={"band": height}, stroke=EDGE, strokeWidth=0.5)
        .encode(**described(x=x, x2="end:Q", y=y, color=color))
        for level, (_, height) in styles.items()
        if (some := [row for row in rows if row["level"] == level])
    ]
    step = max(10, min(20, 420 // len(grid.blocks)))
    chart = alt.layer(*bars, _epochs(timeline))
    return sized(chart, canvas.plot_width, step * len(grid.blocks))


def _epochs(timeline: Timeline) -> Chart:
    rows = [{"start": share} for _, share in sample(timeline.epochs, _MAX_EPOCHS)]
    mark = alt.Chart(data(rows)).mark_rule(color=FAINT, strokeDash=[2, 3], aria=False)
    chart: Chart = mark.encode(x=share_axis(top=timeline.spent / timeline.limit))
    return chart


def _in_words(counts: Counter[Level]) -> str:
    if len(counts) == 1:
        return str(next(iter(counts)))
    return ", ".join(f"{level} {num}" for level, num in counts.most_common())


def _why(event: PlanDecided, block: Block) -> str:
    """The unit's own reason; for several units, or where there is none, the plan's."""
    own = event.plan.reasons.get(block.members[0], "") if len(block.members) == 1 else ""
    return own or event.reason


def _sentence(row: Row) -> str:
    text = f"{row['name']} · {row['what']} · {row['start']:.0%} to {row['end']:.0%} of the budget"
    return f"{text}\n{row['why']}" if row["why"] else text


def _note(grids: Sequence[_Grid], stream: Stream) -> str:
    parts = []
    sizes = [len(block.members) for grid in grids for block in grid.blocks]
    if max(sizes) > 1:
        parts.append(f"Up to {max(sizes)} neighbouring units share a row, coloured by most of them")
    if any(len(grid.edges) - 1 < len({start for start, _ in grid.plans}) for grid in grids):
        slices, decided = max(len(grid.edges) - 1 for grid in grids), len(stream.all(PlanDecided))
        parts.append(f"{decided:,} plans were decided; drawn at {slices} points of the budget")
    return "".join(f" {part}." for part in parts)


def _table(panels: list[list[Row]]) -> Table:
    """The levels of each row in order; the latest reason."""
    rows = []
    for panel in panels:
        for name in dict.fromkeys(row["name"] for row in panel):
            bars = [row for row in panel if row["name"] == name]
            history = " → ".join(f"{bar['what']} {bar['end'] - bar['start']:.0%}" for bar in bars)
            rows.append((name, history, bars[-1]["why"]))
    return Table(("unit", "levels, with the share of the budget each was held", "why"), rows)
