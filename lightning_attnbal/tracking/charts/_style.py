"""Colours and type of all drawings.

Hues are those of Okabe and Ito, sequential scales viridis, the diverging one blue and orange: all
told apart by people with a colour vision deficiency. Neutral tones are written nowhere else, so
that a page can exchange them by their value where it is dark.

Source:
    Okabe, Ito, "Color Universal Design", 2008.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any

import altair as alt

from lightning_attnbal.core import Level, LevelKind
from lightning_attnbal.tracking.charts._drawing import (
    AXIS_WIDTH,
    NUMBERS_WIDTH,
    Chart,
    Row,
)

INK, FAINT, GRID, EDGE = "#24292f", "#57606a", "#d9dee4", "#6e7781"
BLUE, ORANGE, GREEN, PINK, SKY = "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9"
ON_DARK, ON_LIGHT = "#ffffff", "#000000"  # text on a coloured cell, light and dark pages alike
SEQUENTIAL, DIVERGING = "viridis", "blueorange"
HUES = (BLUE, ORANGE, GREEN, PINK, SKY, "#e69f00", "#f0e442", EDGE)

# what trains is coloured, what rests is grey; the thicker the bar, the dearer the level
_LEVELS = {
    LevelKind.CACHED: ("#eceff2", 0.16),
    LevelKind.FROZEN: ("#c3c9d1", 0.3),
    LevelKind.DETACHED: ("#f0e442", 0.45),
    LevelKind.LOCAL: ("#e69f00", 0.6),
    LevelKind.LORA: (SKY, 0.74),
    LevelKind.FULL: (BLUE, 0.92),
}
_LORA = ("#c4e5f8", "#9fd4f3", "#7bc4ee", SKY)  # the darker, the higher the rank


def level_styles(levels: Iterable[Level]) -> dict[str, tuple[str, float]]:
    """Level → its colour and the height of its bar as a share of the row, dearest first."""
    kinds = list(LevelKind)
    order = sorted(set(levels), key=lambda x: (kinds.index(x.kind), x.rank), reverse=True)
    ranks = sorted(level.rank for level in order if level.rank)
    return {str(level): _level_style(level, ranks) for level in order}


def _level_style(level: Level, ranks: list[int]) -> tuple[str, float]:
    color, height = _LEVELS[level.kind]
    if level.kind is not LevelKind.LORA or len(ranks) < 2:
        return color, height
    place = ranks.index(level.rank) / (len(ranks) - 1)
    return _LORA[round(place * (len(_LORA) - 1))], height


def row_axis(order: list[str], field: str = "row") -> alt.Y:
    """A band per label, in the given order from the top."""
    axis = alt.Axis(
        minExtent=AXIS_WIDTH,
        maxExtent=AXIS_WIDTH,
        ticks=False,
        domain=False,
        labelLimit=0,
        labelPadding=5,
    )
    return alt.Y(f"{field}:N", sort=order, title=None, axis=axis)


def value_axis(
    field: str, title: str | None, domain: list[float] | None = None, **axis: Any
) -> alt.Y:
    """A number from the bottom up, its title above the plot; the domain need not hold zero."""
    settings: Row = {"minExtent": NUMBERS_WIDTH, "maxExtent": NUMBERS_WIDTH, "tickCount": 5}
    above: Row = {"titleAngle": 0, "titleAlign": "left", "titleX": 0, "titleY": -9}
    scale = alt.Scale(zero=False) if domain is None else alt.Scale(domain=domain)
    return alt.Y(f"{field}:Q", title=title, axis=alt.Axis(**settings, **above, **axis), scale=scale)


def share_axis(field: str = "start", title: str = "budget spent", top: float = 1.0) -> alt.X:
    """A share of the budget from the left to the right."""
    axis = alt.Axis(format="%", tickCount=5)
    return alt.X(f"{field}:Q", title=title, axis=axis, scale=alt.Scale(domain=[0, max(1.0, top)]))


def shades(field: str, title: str, rows: Iterable[Row], **scale: Any) -> alt.Color:
    """Colours for a number, the legend above the plot; one value alone is a scale as well."""
    values = [row[field] for row in rows]
    low, high = min(values), max(values)
    domain = scale.pop("domain", [low, high if high > low else low + (abs(low) or 1.0)])
    settings = {"scheme": SEQUENTIAL, "domain": domain, **scale}
    ends = [domain[0], sum(domain) / 2, domain[1]]
    legend = alt.Legend(title=title, gradientLength=120, values=ends, format=".3~g")
    return alt.Color(f"{field}:Q", scale=alt.Scale(**settings), legend=legend)


def styled(chart: Chart) -> Chart:
    """The chart in the common type and tones."""
    chart = chart.copy(deep=False)
    chart.config = _config()
    return chart


@cache
def _config() -> alt.Config:
    """Built once: Altair checks each entry against its schema, which takes a while."""
    label = {"labelColor": INK, "titleColor": INK, "labelFontSize": 10, "titleFontSize": 10}
    label = {**label, "titleFontWeight": "normal"}
    axis = {**label, "gridColor": GRID, "domainColor": EDGE, "tickColor": EDGE}
    legend = {**label, "orient": "top", "symbolStrokeColor": EDGE, "columns": 4, "offset": 6}
    config: alt.Config = alt.Config.from_dict(
        {
            "background": "transparent",
            "font": "system-ui, sans-serif",
            "view": {"stroke": None},
            "axis": axis,
            "legend": legend,
            "title": {"color": INK, "fontSize": 11, "anchor": "start", "offset": 4},
        }
    )
    return config
