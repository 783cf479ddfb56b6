"""A run in TensorBoard."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

from typing_extensions import override

from lightning_attnbal.tracking._event import Event
from lightning_attnbal.tracking._events import Notice, PlanDecided, RunEnded, RunStarted
from lightning_attnbal.tracking.views._keys import Key
from lightning_attnbal.tracking.views._loggers import Logger, LoggerView
from lightning_attnbal.tracking.views._panels import LINES
from lightning_attnbal.tracking.views._view import Content, Frame


def _layout() -> dict[str, dict[str, list[Any]]]:
    """Custom scalars: section → chart → kind and keys; the forecast with its band."""
    layout: dict[str, dict[str, list[Any]]] = {
        section: {
            title: ["Multiline", [keys] if isinstance(keys, str) else [f"^{k}$" for k in keys]]
            for title, keys in charts.items()
        }
        for section, charts in LINES.items()
    }
    band = [Key.FORECAST_MEAN.value, Key.FORECAST_LOW.value, Key.FORECAST_HIGH.value]
    layout["Budget"]["forecast"] = ["Margin", band]
    return layout


class TensorBoardView(LoggerView):
    """Scalars, figures, reasons as text, and a page of custom scalars in TensorBoard.

    Everything is at its optimizer step.

    Args:
        logger: a `TensorBoardLogger`.
    """

    shows = frozenset({Content.SCALARS, Content.FIGURES, Content.REASONS})

    def __init__(self, logger: Logger) -> None:
        super().__init__(logger)
        self._has_layout = False

    @override
    def show(self, frame: Frame) -> None:
        writer = self.logger.experiment
        if not self._has_layout:
            writer.add_custom_scalars(_layout())
            self._has_layout = True
        super().show(frame)
        for tag, text in _texts(frame.events):
            writer.add_text(tag, text, frame.step)
        for name, png in frame.figures.items():
            writer.add_image(Key.FIGURE.of(name), _pixels(png), frame.step, dataformats="HWC")


def _texts(events: tuple[Event, ...]) -> Iterator[tuple[str, str]]:
    """Tag and Markdown of what is said in words."""
    for event in events:
        match event:
            case RunStarted():
                yield "attnbal/run", f"budget {event.budget}, seed {event.seed}"
            case PlanDecided():
                said = [str(event.plan), event.reason, *event.changes]
                reasons = (f"{unit}: {why}" for unit, why in event.plan.reasons.items())
                yield Key.DECISIONS.of_task(event.plan.task), _bullets([*said, *reasons])
            case Notice():
                yield "attnbal/notice", event.text
            case RunEnded():
                yield "attnbal/run", f"ended: {event.why}"
            case _:
                pass


def _bullets(lines: list[str]) -> str:
    return "\n".join(f"- {line}" for line in lines if line)


def _pixels(png: bytes) -> Any:
    """(height, width, 3), bytes."""
    import numpy as np
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))
