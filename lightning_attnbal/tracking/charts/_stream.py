"""A run's events, sorted for drawing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from lightning_attnbal.core import Dimension, Quantity
from lightning_attnbal.tracking._event import Event
from lightning_attnbal.tracking._events import CostSpent, PlanDecided, RunEnded, RunStarted
from lightning_attnbal.tracking._timeline import Timeline, build_timeline

EventT = TypeVar("EventT", bound=Event)


@dataclass(frozen=True)
class Stream:
    """Events with the share of the budget that was spent when each was recorded.

    Args:
        events: in the order of the stream.
        shares: per event, budget spent so far over the limit; 0 where no plan tells the limit.
        timeline: levels over the budget; None where nothing was decided yet.
    """

    events: tuple[Event, ...]
    shares: tuple[float, ...]
    timeline: Timeline | None

    @classmethod
    def of(cls, events: Sequence[Event]) -> Stream:
        """Sort a stream.

        Raises:
            ValueError: a plan was decided, but the stream knows no budget above zero.
        """
        is_decided = any(isinstance(event, PlanDecided) for event in events)
        timeline = build_timeline(events) if is_decided else None
        spent, shares = 0.0, []
        for event in events:
            if isinstance(event, CostSpent | PlanDecided | RunEnded):
                spent = event.spent
            shares.append(0.0 if timeline is None else spent / timeline.limit)
        return cls(tuple(events), tuple(shares), timeline)

    def all(self, kind: type[EventT]) -> list[EventT]:
        """The events of one kind."""
        return [event for event in self.events if isinstance(event, kind)]

    def last(self, kind: type[EventT]) -> EventT | None:
        """The latest event of one kind."""
        return next((e for e in reversed(self.events) if isinstance(e, kind)), None)

    def timed(self, kind: type[EventT]) -> list[tuple[float, EventT]]:
        """The events of one kind, each with the share of the budget spent before it."""
        pairs = zip(self.shares, self.events, strict=True)
        return [(share, event) for share, event in pairs if isinstance(event, kind)]

    @property
    def dimension(self) -> Dimension | None:
        """What the budget counts, where it was recorded."""
        started = self.last(RunStarted)
        return None if started is None else started.dimension

    def amount(self, value: float) -> str:
        """A cost in words: with its unit where that was recorded."""
        return f"{value:.4g}" if self.dimension is None else str(Quantity(value, self.dimension))
