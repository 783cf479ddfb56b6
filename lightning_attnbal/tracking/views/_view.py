"""What a view is: something that shows a run, one frame at a time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import ClassVar

from lightning_attnbal.tracking._event import Event
from lightning_attnbal.tracking._events import RunStarted
from lightning_attnbal.tracking.views._rows import DecisionRow, UnitRow


class Content(StrEnum):
    """What a frame may hold, and a view may or may not be able to show."""

    SCALARS = "scalars"
    FIGURES = "figures"
    TABLES = "tables"
    REASONS = "reasons"


@dataclass(frozen=True, kw_only=True)
class Frame:
    """What is new in a run at one moment, ready to be shown.

    Args:
        step: optimizer steps taken.
        epoch: zero-based.
        events: the new events; none where the frame only closes an epoch.
        scalars: log key → finite value, see `Key`.
        units: a row per task and unit where the frame closes an epoch, else empty.
        decisions: those since the last frame.
        figures: name → PNG, where the frame closes an epoch and it was time to draw.
        started: the first event of the run, None if this stream has lost it.
        is_last: whether the run has ended.

    Example:
        >>> Frame(step=3, epoch=0, scalars={"attnbal/budget/spent": 2.0}).is_last
        False
    """

    step: int
    epoch: int
    events: tuple[Event, ...] = ()
    scalars: Mapping[str, float] = field(default_factory=dict)
    units: tuple[UnitRow, ...] = ()
    decisions: tuple[DecisionRow, ...] = ()
    figures: Mapping[str, bytes] = field(default_factory=dict)
    started: RunStarted | None = None
    is_last: bool = False


class View(ABC):
    """Shows a run somewhere. A new one overrides `show` and says in `shows` what it can show.

    Attributes:
        shows: what it can show.

    Raises:
        ValueError: it is called after the last frame.

    Example:
        >>> class Printed(View):
        ...     shows = frozenset({Content.SCALARS})
        ...
        ...     def show(self, frame):
        ...         print(frame.step, dict(frame.scalars))
        >>> Printed()(Frame(step=3, epoch=0, scalars={"attnbal/budget/spent": 2.0}))
        3 {'attnbal/budget/spent': 2.0}
    """

    shows: ClassVar[frozenset[Content]]
    _is_over: bool = False

    def __call__(self, frame: Frame) -> None:
        """Show the next frame of the run."""
        if self._is_over:
            msg = f"Expected no frame after the last one, but got one of step {frame.step}."
            raise ValueError(msg)
        self._is_over = frame.is_last
        self.show(frame)

    @abstractmethod
    def show(self, frame: Frame) -> None:
        """Show what the frame holds."""

    @property
    def name(self) -> str:
        """What messages call it."""
        return type(self).__name__

    @property
    def gaps(self) -> tuple[str, ...]:
        """What of a frame it cannot show."""
        return tuple(content.value for content in Content if content not in self.shows)
