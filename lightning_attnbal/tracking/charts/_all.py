"""All figures of a run, by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lightning_attnbal.tracking._event import Event
from lightning_attnbal.tracking.charts._account import (
    draw_budget,
    draw_cost_error,
    draw_learning_rate,
    draw_time,
)
from lightning_attnbal.tracking.charts._attention import (
    draw_attention_entropy,
    draw_attention_importance,
)
from lightning_attnbal.tracking.charts._choice import draw_forecast, draw_frontier
from lightning_attnbal.tracking.charts._drawing import Canvas, Drawing
from lightning_attnbal.tracking.charts._load import draw_contribution, draw_cost, draw_load
from lightning_attnbal.tracking.charts._plan import draw_plan
from lightning_attnbal.tracking.charts._scores import draw_scores
from lightning_attnbal.tracking.charts._stream import Stream
from lightning_attnbal.tracking.charts._tasks import draw_affinity, draw_shares

DRAWERS: dict[str, Callable[[Stream, Canvas], Drawing | None]] = {
    "plan": draw_plan,
    "time": draw_time,
    "load": draw_load,
    "contribution": draw_contribution,
    "cost": draw_cost,
    "budget": draw_budget,
    "learning_rate": draw_learning_rate,
    "scores": draw_scores,
    "frontier": draw_frontier,
    "forecast": draw_forecast,
    "attention_entropy": draw_attention_entropy,
    "attention_importance": draw_attention_importance,
    "shares": draw_shares,
    "affinity": draw_affinity,
    "cost_error": draw_cost_error,
}


def draw_all(events: Sequence[Event], canvas: Canvas) -> dict[str, Drawing]:
    """Every figure the stream has the data for."""
    stream = Stream.of(events)
    drawings = {name: draw(stream, canvas) for name, draw in DRAWERS.items()}
    return {name: drawing for name, drawing in drawings.items() if drawing is not None}
