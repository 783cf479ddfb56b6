"""Drawings as elements of a page."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from markupsafe import Markup

from lightning_attnbal.tracking.charts import to_svg
from lightning_attnbal.tracking.charts._all import DRAWERS
from lightning_attnbal.tracking.charts._drawing import Canvas, Drawing, Table
from lightning_attnbal.tracking.charts._scores import draw_runs
from lightning_attnbal.tracking.charts._stream import Stream
from lightning_attnbal.tracking.charts._style import styled
from lightning_attnbal.tracking.report._svg import embed_svg

NARROW, WIDE = 340, 1060  # pixels: fits a phone; fills a page
_ROW = 360  # usual height of a drawing with its words
_WIDE = {"plan"}

Hints = Literal["script", "title"]


@dataclass(frozen=True)
class Picture:
    """A drawing, its words and its table.

    Args:
        name: of the figure.
        title: what it shows.
        caption: how to read it.
        rows: of the page's grid that a tall drawing fills, in [1, 4].
        drawings: (class, SVG): "any", or "narrow" and "wide" of which the page shows one.
        table: the same in text.
    """

    name: str
    title: str
    caption: str
    rows: int
    drawings: tuple[tuple[str, Markup], ...]
    table: Table


def picture(stream: Stream, name: str, prefix: str, max_marks: int, hints: Hints) -> Picture | None:
    """The figure called `name`, if the stream has the data for it."""
    narrow = DRAWERS[name](stream, Canvas(NARROW, max_marks))
    if narrow is None:
        return None
    if name not in _WIDE:
        return framed(name, [("any", narrow)], prefix, hints)
    wide = DRAWERS[name](stream, Canvas(WIDE, max_marks))
    assert wide is not None  # the width changes nothing about the data
    return framed(name, [("narrow", narrow), ("wide", wide)], prefix, hints)


def framed(
    name: str, drawings: Iterable[tuple[str, Drawing]], prefix: str, hints: Hints
) -> Picture:
    """A picture of one drawing in one or more widths; the last one's words go with it."""
    elements, rows = [], 1
    for width, drawing in drawings:
        label = f"{drawing.title}. Arrow keys move between the marks."
        svg = embed_svg(to_svg(styled(drawing.chart)), f"{prefix}{name}-{width}", label, hints)
        rows = max(rows, min(4, round(_height(svg) / _ROW)))
        # text of the stream was escaped when the drawing was written
        elements.append((width, Markup(svg)))
    return Picture(name, drawing.title, drawing.caption, rows, tuple(elements), drawing.table)


def _height(svg: str) -> float:
    match = re.search(r' height="([\d.]+)"', svg)
    return float(match[1]) if match else 0.0


def compare_scores(streams: Mapping[str, Stream]) -> Picture | None:
    """The scores of several runs in one picture, if any were measured."""
    drawing = draw_runs(streams, Canvas(NARROW))
    return None if drawing is None else framed("scores", [("any", drawing)], "all-", "script")
