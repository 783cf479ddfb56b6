"""Who is served, and whom that helps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean

import altair as alt

from lightning_attnbal.tracking._task_events import AffinityMeasured, SharesDecided
from lightning_attnbal.tracking.charts._drawing import (
    AXIS_WIDTH,
    CHARACTERS,
    Canvas,
    Chart,
    Drawing,
    Row,
    Table,
    data,
    described,
    sized,
)
from lightning_attnbal.tracking.charts._stream import Stream
from lightning_attnbal.tracking.charts._style import (
    BLUE,
    DIVERGING,
    EDGE,
    ON_DARK,
    ON_LIGHT,
    row_axis,
    shades,
)
from lightning_attnbal.tracking.charts._thin import Block, block_units, chunk

_MAX_TASKS, _MAX_COLUMNS, _HEIGHT = 12, 40, 34
_DARK_BLUE, _DARK_ORANGE = 0.78, 0.87  # of the scale's reach: from here on white is read better


def draw_shares(stream: Stream, canvas: Canvas) -> Drawing | None:
    """Each task's share of the batches, decision by decision; a panel per task."""
    decided = stream.all(SharesDecided)
    if not decided:
        return None
    served: dict[str, float] = {}
    for event in decided:
        for task, share in event.shares.items():
            served[task] = served.get(task, 0.0) + share
    tasks = sorted(served, key=served.__getitem__, reverse=True)[:_MAX_TASKS]
    groups = chunk(decided, _MAX_COLUMNS)
    panels = [
        _share_panel(block, [_share_row(block, group) for group in groups], canvas)
        for block in block_units(tasks, _MAX_TASKS, CHARACTERS)
    ]
    chart: Chart = alt.vconcat(*panels, spacing=4)
    caption = "Share of the batches each task gets, from the first decision to the last; the "
    caption += "height of a panel is all of them."
    if len(served) > len(tasks):
        caption += f" The {len(tasks)} largest of {len(served)} tasks are drawn."
    table = [
        (task, " → ".join(f"{event.shares.get(task, 0.0):.0%}" for event, *_ in groups))
        for task in tasks
    ]
    return Drawing(
        "Task shares", caption, chart, Table(("task", "share over the decisions"), table)
    )


def draw_affinity(stream: Stream, canvas: Canvas) -> Drawing | None:
    """What a step of one task does for another, as measured last."""
    seen = stream.last(AffinityMeasured)
    if seen is None or not seen.tasks:
        return None
    blocks = block_units(seen.tasks, len(seen.tasks), CHARACTERS)
    tasks = blocks[: 2 * _MAX_TASKS]
    rows = [_affinity_row(seen, blocks, i, k) for i in range(len(tasks)) for k in range(len(tasks))]
    rows = [row for row in rows if math.isfinite(row["value"])]
    if not rows:
        return None
    chart = _affinity(rows, [block.label for block in tasks], canvas)
    caption = "Row: the task a step is taken for; column: the task it helps (blue) or hurts "
    caption += "(orange), relative to what that task's own steps do for it."
    if len(tasks) < len(blocks):
        caption += f" The first {len(tasks)} of {len(blocks)} tasks are drawn."
    table = [(row["name"], row["column_name"], row["words"]) for row in rows]
    header = ("a step of", "does for", "affinity")
    return Drawing("Task affinity", caption, chart, Table(header, table))


def _share_row(block: Block, group: Sequence[SharesDecided]) -> Row:
    (task,) = block.members
    share = fmean(event.shares.get(task, 0.0) for event in group)
    first, last = group[0].epoch, group[-1].epoch
    when = f"epoch {first}" if first == last else f"epochs {first} to {last}"
    why = group[0].reasons.get(task, "")
    text = f"{task} · {when} · {share:.1%} of the batches" + (f"\n{why}" if why else "")
    return {"row": block.label, "share": share, "text": text}


def _share_panel(block: Block, rows: list[Row], canvas: Canvas) -> Chart:
    rows = [{**row, "column": i} for i, row in enumerate(rows)]
    y = alt.Y(
        "share:Q",
        title=block.label,
        scale=alt.Scale(domain=[0, 1]),
        axis=alt.Axis(
            values=[0, 1],
            format="%",
            minExtent=AXIS_WIDTH,
            maxExtent=AXIS_WIDTH,
            titleAngle=0,
            titleAlign="right",
            titleX=-38,
            titleAnchor="middle",
        ),
    )
    x = alt.X("column:O", title=None, axis=None, scale=alt.Scale(paddingInner=0.1))
    mark = alt.Chart(data(rows)).mark_bar(color=BLUE, stroke=EDGE, strokeWidth=0.4)
    return sized(mark.encode(**described(x=x, y=y)), canvas.plot_width, _HEIGHT)


def _affinity_row(seen: AffinityMeasured, blocks: list[Block], i: int, k: int) -> Row:
    value = seen.affinity[i][k]
    words = f"{value:+.2f}" + (f" ± {seen.errors[i][k]:.2f}" if seen.errors else "")
    return {
        "row": blocks[i].label,
        "column": blocks[k].label,
        "name": seen.tasks[i],
        "column_name": seen.tasks[k],
        "value": value,
        "words": words,
        "number": f"{value:.1f}",
        "text": f"a step of {seen.tasks[i]} for {seen.tasks[k]}: {words}",
    }


def _affinity(rows: list[Row], tasks: list[str], canvas: Canvas) -> Chart:
    reach = max(1e-9, *(abs(row["value"]) for row in rows))
    for row in rows:
        is_dark = not -_DARK_ORANGE * reach < row["value"] < _DARK_BLUE * reach
        row["ink"] = ON_DARK if is_dark else ON_LIGHT
    x = alt.X("column:N", sort=tasks, title=None, axis=alt.Axis(labelAngle=-40, labelLimit=90))
    base = alt.Chart(data(rows))
    # reversed: blue helps, orange hurts
    color = shades(
        "value", "affinity", rows, scheme=DIVERGING, domain=[-reach, reach], reverse=True
    )
    cells = base.mark_rect(stroke=EDGE, strokeWidth=0.3)
    layers: list[alt.Chart] = [cells.encode(**described(x=x, y=row_axis(tasks), color=color))]
    if len(tasks) <= _MAX_TASKS:
        ink = alt.Color("ink:N", scale=None)
        numbers = base.mark_text(fontSize=9, aria=False)
        layers.append(numbers.encode(x=x, y=row_axis(tasks), text="number:N", color=ink))
    chart = alt.layer(*layers).resolve_scale(color="independent")
    return sized(chart, canvas.plot_width, 22 * len(tasks))
