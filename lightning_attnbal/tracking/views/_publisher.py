"""The stream on its way to the views: cut into frames, each shown once."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby

from lightning_attnbal.tracking._event import Event
from lightning_attnbal.tracking._events import RunEnded, RunStarted
from lightning_attnbal.tracking.views._figures import Illustrator, missing_for_figures
from lightning_attnbal.tracking.views._rows import decision_rows, unit_rows
from lightning_attnbal.tracking.views._scalars import ScalarReader
from lightning_attnbal.tracking.views._view import Content, Frame, View


class Publisher:
    """Shows a growing stream in every view: scalars at once, tables and figures per epoch.

    A frame holds what happened at one step. An epoch is closed by the first event of the next one,
    or by the end of the run. A view that fails is dropped with a warning: training goes on.

    Args:
        views: where to show the run.
        illustrator: draws the figures; default: those of `tracking.charts`.

    Example:
        >>> from lightning_attnbal.tracking import CostSpent
        >>> class Listed(View):
        ...     shows = frozenset({Content.SCALARS})
        ...
        ...     def show(self, frame):
        ...         print(frame.step, frame.scalars["attnbal/budget/spent"])
        >>> publisher = Publisher([Listed()])
        >>> account = {"planned": 0.0, "seconds": 0.0, "flops": 0.0}
        >>> events = [CostSpent(step=s, spent=2.0 * s, **account) for s in (5, 10)]
        >>> publisher.publish(events[:1])
        5 10.0
        >>> publisher.publish(events)
        10 20.0
    """

    def __init__(self, views: Iterable[View], illustrator: Illustrator | None = None) -> None:
        self._views = list(views)
        self._illustrator = Illustrator() if illustrator is None else illustrator
        self._reader = ScalarReader()
        self._started: RunStarted | None = None
        self._epoch, self._step = 0, -1
        self._num_shown = self._num_closed = 0

    @property
    def gaps(self) -> str:
        """One sentence on what the views leave out; empty if they show everything."""
        lacking = [f"{view.name}: {', '.join(view.gaps)}" for view in self._views if view.gaps]
        packages = missing_for_figures()
        if packages and any(Content.FIGURES in view.shows for view in self._views):
            lacking.append(f"figures everywhere (pip install {' '.join(map(repr, packages))})")
        return f"Not shown in {'; '.join(lacking)}." if lacking else ""

    def skip(self, events: Sequence[Event]) -> None:
        """Take these events, the first of the stream, as shown: an earlier process showed them."""
        for event in events[self._num_shown :]:
            self._read(event)
        self._num_shown = self._num_closed = len(events)

    def publish(self, events: Sequence[Event]) -> None:
        """Show what is new in `events`, the whole stream so far."""
        if not self._views:
            return
        for _, group in groupby(events[self._num_shown :], key=lambda e: (e.epoch, e.step)):
            new = tuple(group)
            if self._begins_epoch(new[0]):
                self._close_epoch(events[: self._num_shown])
            self._show_step(events[: self._num_shown + len(new)], new)

    def close(self, events: Sequence[Event]) -> None:
        """Show what is left to show of a run that broke off; does nothing after its regular end."""
        self.publish(events)
        self._close_epoch(events)

    def _begins_epoch(self, event: Event) -> bool:
        """An epoch begins with a step: what is told after the last one belongs to its epoch."""
        return event.epoch > self._epoch and event.step > self._step

    def _show_step(self, stream: Sequence[Event], new: tuple[Event, ...]) -> None:
        """The events of one step, the last ones of `stream`; the end of a run closes its epoch."""
        scalars: dict[str, float] = {}
        for event in new:
            scalars |= self._read(event)
        self._num_shown = len(stream)
        is_last = any(isinstance(event, RunEnded) for event in new)
        if is_last:
            self._num_closed = len(stream)
        self._show(
            Frame(
                step=new[0].step,
                epoch=min(new[0].epoch, self._epoch),
                events=new,
                scalars=scalars,
                units=unit_rows(stream, self._epoch) if is_last else (),
                decisions=decision_rows(new),
                figures=self._figures(stream, always=True) if is_last else {},
                started=self._started,
                is_last=is_last,
            )
        )

    def _close_epoch(self, stream: Sequence[Event]) -> None:
        """Tables and figures of an epoch, unless they have been shown."""
        if self._num_closed == len(stream) or not self._views:
            return
        self._num_closed = len(stream)
        self._show(
            Frame(
                step=self._step,
                epoch=self._epoch,
                units=unit_rows(stream, self._epoch),
                figures=self._figures(stream),
                started=self._started,
            )
        )

    def _read(self, event: Event) -> dict[str, float]:
        """Let an event pass the reader, and take note of what later frames need."""
        if event.step > self._step:
            self._epoch, self._step = max(self._epoch, event.epoch), event.step
        if isinstance(event, RunStarted):
            self._started = event
        return self._reader(event)

    def _figures(self, stream: Sequence[Event], *, always: bool = False) -> Mapping[str, bytes]:
        """The figures, where a view can show them and it is time."""
        if not any(Content.FIGURES in view.shows for view in self._views):
            return {}
        try:
            return self._illustrator(stream, always=always)
        except Exception as error:
            _warn("The figures of this run are left out", error)
            return {}

    def _show(self, frame: Frame) -> None:
        for view in tuple(self._views):
            try:
                view(frame)
            except Exception as error:
                self._views.remove(view)
                _warn(f"{view.name} shows this run no longer", error)


def _warn(what: str, error: Exception) -> None:
    """A picture of the run may fail, the run may not: it is said, and training goes on."""
    warnings.warn(f"{what}: {type(error).__name__}: {error}", RuntimeWarning, stacklevel=3)
