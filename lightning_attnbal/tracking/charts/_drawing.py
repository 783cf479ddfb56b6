"""What a drawn figure is, and the room it has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import altair as alt

Chart: TypeAlias = alt.Chart | alt.LayerChart | alt.FacetChart | alt.VConcatChart
Row: TypeAlias = dict[str, Any]

AXIS_WIDTH, CHARACTERS = 104, 16  # room left of a plot for its rows' names, and how long they get
NUMBERS_WIDTH = 46  # the same for numbers
_RIGHT = 16


@dataclass(frozen=True)
class Canvas:
    """The room a drawing has.

    Args:
        width: of the whole picture, in pixels.
        max_marks: most bars, cells or points in one drawing; more are drawn as fewer.
    """

    width: int = 340
    max_marks: int = 1500

    @property
    def plot_width(self) -> int:
        """What is left for a plot beside the names of its rows, in pixels."""
        return self.width - AXIS_WIDTH - _RIGHT

    @property
    def curve_width(self) -> int:
        """What is left for a plot beside the numbers of its axis, in pixels."""
        return self.width - NUMBERS_WIDTH - _RIGHT


@dataclass(frozen=True)
class Table:
    """The same facts for those who read.

    Args:
        header: names of the columns.
        rows: cells as text.
    """

    header: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


@dataclass(frozen=True)
class Drawing:
    """One figure.

    Args:
        title: what it shows.
        caption: how to read it, and what was drawn as one.
        chart: the picture.
        table: the same in text.
    """

    title: str
    caption: str
    chart: Chart
    table: Table


def data(rows: Sequence[Row]) -> alt.InlineData:
    """Rows inside the chart itself: nothing is fetched."""
    return alt.InlineData(values=list(rows))


def sized(chart: Chart, width: int, height: int, title: str = "") -> Chart:
    """The chart with the size of its plot and, if it has one, its title above."""
    result: Chart = chart.properties(width=width, height=height)
    return result.properties(title=alt.Title(title, limit=width)) if title else result


def stack_tasks(panels: Mapping[str, Chart]) -> Chart:
    """The panels below one another, each named after its task if there are several."""
    if len(panels) == 1:
        return next(iter(panels.values()))
    titled = [panel.properties(title=alt.Title(f"task {task}")) for task, panel in panels.items()]
    return alt.vconcat(*titled, spacing=12)


def described(**channels: Any) -> dict[str, Any]:
    """Channels, with a row's `text` as what is shown on hover and read out."""
    return {**channels, "description": alt.Description("text:N"), "tooltip": alt.Tooltip("text:N")}
