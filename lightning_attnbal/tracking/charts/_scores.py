"""What the user's module logged, over the budget spent; for one run or several."""

from __future__ import annotations

import math
from collections.abc import Mapping

import altair as alt

from lightning_attnbal.tracking._detail_events import ScoresMeasured
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
from lightning_attnbal.tracking.charts._style import HUES, share_axis, value_axis
from lightning_attnbal.tracking.charts._thin import sample

_MAX_SCORES, _POINTS, _HEIGHT = 8, 60, 96
_SHAPES = ("circle", "diamond", "square", "triangle-up", "cross", "triangle-down")
_DASHES = ([1, 0], [5, 3], [2, 2], [8, 3, 2, 3])


def draw_scores(stream: Stream, canvas: Canvas) -> Drawing | None:
    """A panel per metric, over the budget spent."""
    return draw_runs({"": stream}, canvas)


def draw_runs(streams: Mapping[str, Stream], canvas: Canvas) -> Drawing | None:
    """A panel per metric with a line per run, each over its own budget."""
    rows = [row for run, stream in streams.items() for row in _rows(run, stream)]
    metrics = list(dict.fromkeys(row["metric"] for row in rows))
    if not metrics:
        return None
    runs = list(streams)
    kept = metrics[:_MAX_SCORES]
    panels = [
        _panel(metric, [row for row in rows if row["metric"] == metric], runs, canvas)
        for metric in kept
    ]
    caption = "As the module logged them at each validation, over the budget spent."
    if len(runs) > 1:
        caption += " Each run over its own budget."
    if len(kept) < len(metrics):
        caption += f" The first {len(kept)} of {len(metrics)} metrics are drawn."
    chart = panels[0] if len(panels) == 1 else alt.vconcat(*panels, spacing=10)
    return Drawing("Scores", caption, chart, _table(rows, kept, runs))


def _table(rows: list[Row], metrics: list[str], runs: list[str]) -> Table:
    cells = [
        (metric, run, " → ".join(f"{row['value']:.4g}" for row in some))
        for metric in metrics
        for run in runs
        if (some := [row for row in rows if row["run"] == run and row["metric"] == metric])
    ]
    if len(runs) > 1:
        return Table(("metric", "run", "values"), cells)
    return Table(("metric", "values"), [(metric, values) for metric, _, values in cells])


def _rows(run: str, stream: Stream) -> list[Row]:
    timed = sample(stream.timed(ScoresMeasured), _POINTS)
    rows = []
    for share, event in timed:
        for metric, value in event.scores.items():
            if math.isfinite(value):
                text = f"{metric} {value:.4g} · step {event.step} · {share:.0%} of the budget"
                text = f"{run} · {text}" if run else text
                row = {"run": run, "metric": metric, "start": share, "value": value}
                rows.append({**row, "text": text})
    return rows


def _panel(metric: str, rows: list[Row], runs: list[str], canvas: Canvas) -> Chart:
    legend = None if len(runs) == 1 else alt.Legend(title=None, columns=2, labelLimit=140)
    color = alt.Scale(domain=runs, range=[HUES[i % len(HUES)] for i in range(len(runs))])
    shape = alt.Scale(domain=runs, range=[_SHAPES[i % len(_SHAPES)] for i in range(len(runs))])
    dash = alt.Scale(domain=runs, range=[_DASHES[i % len(_DASHES)] for i in range(len(runs))])
    base = alt.Chart(data(rows)).encode(
        x=share_axis(top=max(row["start"] for row in rows)),
        y=value_axis("value", None),
        color=alt.Color("run:N", scale=color, legend=legend),
    )
    line = base.mark_line(aria=False, strokeWidth=1.5).encode(
        strokeDash=alt.StrokeDash("run:N", scale=dash, legend=None)
    )
    points = base.mark_point(filled=True, size=40, opacity=1).encode(
        **described(shape=alt.Shape("run:N", scale=shape, legend=legend))
    )
    return sized(alt.layer(line, points), canvas.curve_width, _HEIGHT, metric)
