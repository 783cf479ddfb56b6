"""The figures of a run as pictures, drawn as often as they are worth their time."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec

from lightning_attnbal.core import check_number
from lightning_attnbal.tracking._event import Event

Draw = Callable[[Sequence[Event]], Mapping[str, bytes]]

_NEEDED = {
    "altair": "lightning-attnbal[report]",
    "vl_convert": "lightning-attnbal[report]",
    "jinja2": "lightning-attnbal[report]",
    "PIL": "pillow",
}


def missing_for_figures() -> tuple[str, ...]:
    """What to install before figures can be drawn for loggers; empty if nothing is missing.

    Example:
        >>> missing_for_figures()
        ()
    """
    return tuple(dict.fromkeys(extra for name, extra in _NEEDED.items() if find_spec(name) is None))


def draw_figures(events: Sequence[Event]) -> dict[str, bytes]:
    """Name → PNG of every figure that the events have something for; none without the packages."""
    if missing_for_figures():
        return {}
    from lightning_attnbal.tracking.charts import draw, to_png

    return {name: to_png(chart) for name, chart in draw(events).items()}


class Illustrator:
    """Draws the figures at the end of an epoch, unless that would take too much of the run.

    Args:
        draw: from events to name → PNG.
        share: of the run's time that drawing may take, in [0, 1]; the run's end is always drawn.
        clock: seconds from any origin, never falling.

    Raises:
        ValueError: `share` is out of range.

    Example:
        >>> from lightning_attnbal.tracking import Notice
        >>> ticks = iter([0.0, 2.0, 2.0, 4.0])
        >>> draws = Illustrator(lambda events: {"plan": b"..."}, share=0.01, clock=ticks.__next__)
        >>> early, later = Notice(text="", elapsed_seconds=60), Notice(text="", elapsed_seconds=300)
        >>> [sorted(draws([event])) for event in (early, early, later)]
        [['plan'], [], ['plan']]
    """

    def __init__(
        self,
        draw: Draw = draw_figures,
        *,
        share: float = 0.01,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._draw = draw
        self._share = check_number("share", share, low=0, high=1)
        self._clock = clock
        self._seconds = 0.0

    def __call__(self, events: Sequence[Event], *, always: bool = False) -> Mapping[str, bytes]:
        """The figures, or none if they have to wait."""
        if not always and self._seconds > self._share * events[-1].elapsed_seconds:
            return {}
        start = self._clock()
        figures = self._draw(events)
        self._seconds += self._clock() - start
        return figures
