"""What decisions chose from, and where they expected the run to end."""

from __future__ import annotations

import math

import altair as alt

from lightning_attnbal.tracking._detail_events import FrontierPoint, FrontierSolved
from lightning_attnbal.tracking.charts._drawing import (
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
from lightning_attnbal.tracking.charts._style import (
    BLUE,
    EDGE,
    ORANGE,
    SKY,
    share_axis,
    value_axis,
)
from lightning_attnbal.tracking.charts._thin import sample

_POINTS, _HEIGHT, _SIGMAS = 80, 170, 2.0


def draw_frontier(stream: Stream, canvas: Canvas) -> Drawing | None:
    """The plans the latest decision could have taken, a panel per task."""
    latest = {event.task: event for event in stream.all(FrontierSolved) if event.points}
    if not latest:
        return None
    rows = {task: [_row(point, stream) for point in _kept(e)] for task, e in latest.items()}
    chart = stack_tasks({task: _frontier(points, canvas) for task, points in rows.items()})
    caption = (
        "Every dot is a plan that could be had: what a step of it costs, and where the run is "
        "forecast to end with it (or, without forecast, what a step is worth). Diamond: chosen."
    )
    most = max(len(event.points) for event in latest.values())
    if most > _POINTS:
        caption += f" {_POINTS} of up to {most:,} plans are drawn."
    table = [
        (row["plan"], row["cost_text"], f"{row['y']:.4g}", "chosen" if row["is_chosen"] else "")
        for points in rows.values()
        for row in points
    ]
    header = ("plan", "cost of a step", _measure(rows), "")
    return Drawing("The plans to choose from", caption, chart, Table(header, table))


def draw_forecast(stream: Stream, canvas: Canvas) -> Drawing | None:
    """The forecast of the chosen plan's final loss, decision by decision."""
    rows: list[Row] = []
    for share, event in stream.timed(FrontierSolved):
        chosen = next((point for point in event.points if point.is_chosen), None)
        if chosen is not None and math.isfinite(chosen.loss):
            rows.append(_forecast_row(share, event, chosen))
    if not rows or stream.timeline is None:
        return None
    rows = sample(rows, _POINTS)
    y = value_axis("loss", "forecast loss at the end")
    base = alt.Chart(data(rows)).encode(x=share_axis(), y=y, detail="task:N")
    layers = [
        base.mark_area(color=SKY, opacity=0.35, aria=False).encode(y="low:Q", y2="high:Q"),
        base.mark_rule(color=EDGE, aria=False).encode(y="low:Q", y2="high:Q"),
        base.mark_line(color=BLUE, aria=False),
        base.mark_point(filled=True, size=40, color=BLUE, opacity=1).encode(**described()),
    ]
    chart = sized(alt.layer(*layers), canvas.curve_width, _HEIGHT)
    caption = (
        "Where the chosen plan was expected to end, at each decision; the band is two standard "
        "deviations either way."
    )
    table = [(row["task"], f"{row['start']:.0%}", row["words"]) for row in rows]
    header = ("task", "budget spent", "forecast loss at the end")
    return Drawing("Forecast of the final loss", caption, chart, Table(header, table))


def _kept(event: FrontierSolved) -> list[FrontierPoint]:
    """Some of the points, the chosen one among them, cheapest first."""
    kept = sample(event.points, _POINTS)
    chosen = [p for p in event.points if p.is_chosen and not any(p is q for q in kept)]
    return sorted([*kept, *chosen], key=lambda point: point.cost)


def _row(point: FrontierPoint, stream: Stream) -> Row:
    is_forecast = math.isfinite(point.loss)
    y = point.loss if is_forecast else point.value
    error = point.error if is_forecast and math.isfinite(point.error) else 0.0
    cost = stream.amount(point.cost)
    text = f"{point.plan} · {cost} per step · {point.steps:,.0f} steps · worth {point.value:.3g}"
    text += f" · forecast {point.loss:.4g} ± {error:.2g}" if is_forecast else ""
    return {
        "plan": point.plan,
        "cost": point.cost,
        "cost_text": cost,
        "y": y,
        "low": y - error,
        "high": y + error,
        "is_forecast": is_forecast,
        "is_chosen": point.is_chosen,
        "text": f"chosen: {text}" if point.is_chosen else text,
    }


def _measure(rows: dict[str, list[Row]]) -> str:
    is_forecast = any(row["is_forecast"] for points in rows.values() for row in points)
    return "forecast loss" if is_forecast else "value of a step"


def _frontier(rows: list[Row], canvas: Canvas) -> Chart:
    # plans without forecast have no place on an axis of forecasts
    shown = [row for row in rows if row["is_forecast"]] or rows
    y = value_axis("y", _measure({"": shown}))
    x = alt.X(
        "cost:Q",
        title="cost of a step",
        axis=alt.Axis(format="~s", tickCount=5),
        scale=alt.Scale(zero=False, padding=8),
    )
    chosen, others = (
        alt.Chart(data([row for row in shown if row["is_chosen"] is wanted]))
        for wanted in (True, False)
    )
    errors = alt.Chart(data(shown)).mark_rule(color=EDGE, opacity=0.6, aria=False)
    big = chosen.mark_point(
        filled=True, size=150, shape="diamond", color=ORANGE, stroke=EDGE, opacity=1
    )
    small = others.mark_point(filled=True, size=36, color=BLUE, opacity=0.85)
    chart = alt.layer(
        errors.encode(x=x, y=alt.Y("low:Q"), y2="high:Q"),
        small.encode(**described(x=x, y=y)),
        big.encode(**described(x=x, y=y)),
    )
    return sized(chart, canvas.curve_width, _HEIGHT)


def _forecast_row(share: float, event: FrontierSolved, chosen: FrontierPoint) -> Row:
    error = chosen.error if math.isfinite(chosen.error) else 0.0
    words = f"{chosen.loss:.4g} ± {error:.2g}"
    return {
        "task": event.task,
        "start": share,
        "loss": chosen.loss,
        "low": chosen.loss - _SIGMAS * error,
        "high": chosen.loss + _SIGMAS * error,
        "words": words,
        "text": f"step {event.step} · {share:.0%} spent · forecast {words} · {chosen.plan}",
    }
