"""Where the budget and the time went."""

from __future__ import annotations

import altair as alt

from lightning_attnbal.tracking._detail_events import TimeSpent
from lightning_attnbal.tracking._events import CostSpent
from lightning_attnbal.tracking.charts._drawing import (
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
    EDGE,
    FAINT,
    INK,
    ORANGE,
    row_axis,
    share_axis,
    value_axis,
)
from lightning_attnbal.tracking.charts._thin import sample

_POINTS, _HEIGHT = 60, 150
_PARTS = {
    "forward": "forward",
    "activation_gradient": "gradient dX",
    "weight_gradient": "gradient dW",
    "optimizer": "optimizer",
    "data": "data wait",
    "cache": "cache",
    "probes": "probes",
    "decisions": "decisions",
    "validation": "validation",
    "other": "other",
}


def draw_time(stream: Stream, canvas: Canvas) -> Drawing | None:
    """A waterfall: every part begins where the one before ended."""
    spent = stream.last(TimeSpent)
    total = sum(spent.seconds.values()) if spent else 0.0
    if spent is None or total <= 0:
        return None
    rows: list[Row] = []
    end = 0.0
    for part in sorted(spent.seconds, key=[*_PARTS, *spent.seconds].index):
        start, end = end, end + spent.seconds[part]
        name, share = _PARTS.get(part, part), spent.seconds[part] / total
        rows.append({"row": f"{name} {share:.0%}", "start": start, "end": end, "part": name})
        rows[-1]["text"] = f"{name} · {spent.seconds[part]:.3g} s · {share:.1%} of {total:.4g} s"
    chart = (
        alt.Chart(data(rows))
        .mark_bar(color=BLUE, stroke=EDGE, strokeWidth=0.5, height={"band": 0.8})
        .encode(
            **described(
                x=alt.X("start:Q", title="seconds", axis=alt.Axis(tickCount=5)),
                x2="end:Q",
                y=row_axis([row["row"] for row in rows]),
            )
        )
        .properties(width=canvas.plot_width, height=18 * len(rows))
    )
    table = [
        (row["part"], f"{row['end'] - row['start']:.3g}", row["row"].rsplit(" ", 1)[1])
        for row in rows
    ]
    caption = (
        f"{total:.4g} s of wall-clock time, each part after the one before. dX: gradients of the "
        "activations; dW: of the weights; they are told apart by their share of the FLOPs."
    )
    return Drawing(
        "Where the time went", caption, chart, Table(("part", "seconds", "share"), table)
    )


def draw_budget(stream: Stream, canvas: Canvas) -> Drawing | None:
    """What the plans predicted and what was spent, against optimizer steps."""
    costs, timeline = stream.all(CostSpent), stream.timeline
    if not costs or timeline is None:
        return None
    rows: list[Row] = [
        {"step": event.step, "what": what, "share": value / timeline.limit}
        for event in sample(costs, _POINTS)
        for what, value in (("spent", event.spent), ("planned", event.planned))
    ]
    for row in rows:
        row["text"] = f"step {row['step']} · {row['what']} {row['share']:.1%} of the budget"
    top = max(1.05, *(row["share"] for row in rows))
    dash = alt.Scale(domain=["spent", "planned"], range=[[1, 0], [4, 3]])
    base = alt.Chart(data(rows)).encode(
        x=_steps(),
        y=value_axis("share", None, [0, top], format="%"),
        color=alt.Color(
            "what:N",
            scale=alt.Scale(domain=["spent", "planned"], range=[BLUE, INK]),
            legend=alt.Legend(title="share of the budget", symbolType="stroke"),
        ),
    )
    line = base.mark_line(aria=False).encode(strokeDash=alt.StrokeDash("what:N", scale=dash))
    limit = alt.Chart(data([{"share": 1.0}])).mark_rule(color=FAINT, aria=False).encode(y="share:Q")
    chart = _with_points(alt.layer(limit, line), base, canvas)
    table = [
        (f"{e.step:,}", f"{e.planned / timeline.limit:.1%}", f"{e.spent / timeline.limit:.1%}")
        for e in sample(costs, _POINTS)
    ]
    caption = f"The grey line is the limit. {timeline.spent_text}."
    header = ("step", "planned", "spent")
    return Drawing("The budget over the steps", caption, chart, Table(header, table))


def draw_cost_error(stream: Stream, canvas: Canvas) -> Drawing | None:
    """How far what was spent is from what the plans predicted for the same steps."""
    costs = [event for event in stream.all(CostSpent) if event.planned > 0]
    if not costs:
        return None
    kept = sample(costs, _POINTS)
    rows: list[Row] = [{"step": e.step, "error": e.spent / e.planned - 1} for e in kept]
    for row in rows:
        row["text"] = f"step {row['step']} · {row['error']:+.2%} against the plans"
    reach = max(0.01, *(1.1 * abs(row["error"]) for row in rows))
    y = value_axis("error", "more or less than predicted", [-reach, reach], format="+.1%")
    base = alt.Chart(data(rows)).encode(x=_steps(), y=y)
    zero = alt.Chart(data([{"error": 0.0}])).mark_rule(color=FAINT, aria=False).encode(y="error:Q")
    chart = _with_points(alt.layer(zero, base.mark_line(color=BLUE, aria=False)), base, canvas)
    table = [
        (f"{e.step:,}", stream.amount(e.planned), stream.amount(e.spent), row["text"])
        for e, row in zip(kept, rows, strict=True)
    ]
    last = rows[-1]["error"]
    caption = f"Above zero the run cost more than its plans said; at the end {last:+.2%}."
    header = ("step", "predicted", "spent", "in words")
    return Drawing("Predicted against measured cost", caption, chart, Table(header, table))


def draw_learning_rate(stream: Stream, canvas: Canvas) -> Drawing | None:
    """The learning rate of the first parameter group over the budget."""
    rated = [(x, e) for x, e in stream.timed(CostSpent) if e.learning_rate is not None]
    if not rated or stream.timeline is None:
        return None
    kept = sample(rated, _POINTS)
    rows: list[Row] = [{"start": share, "rate": event.learning_rate} for share, event in kept]
    for row, (_, event) in zip(rows, kept, strict=True):
        row["text"] = f"step {event.step} · {row['start']:.0%} spent · rate {row['rate']:.3g}"
    y = value_axis("rate", "learning rate", format="~e")
    base = alt.Chart(data(rows)).encode(x=share_axis(top=rows[-1]["start"] or 0.0), y=y)
    chart = _with_points(base.mark_line(color=ORANGE, aria=False), base, canvas, ORANGE)
    table = [(f"{x:.0%}", f"{e.step:,}", f"{e.learning_rate:.3g}") for x, e in kept]
    header = ("budget spent", "step", "learning rate")
    caption = "It follows the budget spent, and reaches its floor when the budget ends."
    return Drawing("Learning rate", caption, chart, Table(header, table))


def _with_points(under: Chart, base: alt.Chart, canvas: Canvas, color: str = BLUE) -> Chart:
    """Small points on the lines: what is pointed at, focused and read out."""
    points = base.mark_point(filled=True, size=16, opacity=1, color=color).encode(**described())
    return sized(alt.layer(under, points), canvas.curve_width, _HEIGHT)


def _steps() -> alt.X:
    return alt.X("step:Q", title="optimizer step", axis=alt.Axis(tickCount=5, format="~s"))
