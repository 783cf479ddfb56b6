"""The event stream as spans of budget: which unit had which level, from where to where."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from lightning_attnbal.core import Dimension, Level, Quantity
from lightning_attnbal.tracking._event import Event
from lightning_attnbal.tracking._events import CostSpent, PlanDecided, RunEnded, RunStarted


@dataclass(frozen=True)
class Span:
    """A unit's level while the budget spent went from `start` to `end`, shares of the limit."""

    unit: str
    level: Level
    start: float
    end: float


@dataclass(frozen=True)
class Timeline:
    """A run over its budget.

    Args:
        budget: the budget as text.
        dimension: what is counted against it; None if not recorded.
        limit: the budget.
        spent: what was spent of it.
        planned: what the plans predicted for the same steps; NaN if not recorded.
        spans: task → spans, by unit in forward order, then by time.
        epochs: (epoch, share of the budget spent when it began), from epoch 1 on.
    """

    budget: str
    dimension: Dimension | None
    limit: float
    spent: float
    planned: float
    spans: dict[str, tuple[Span, ...]]
    epochs: tuple[tuple[int, float], ...]

    @property
    def spent_text(self) -> str:
        """What was spent of the limit, as a share and, where the unit is known, as amounts."""
        share = f"{self.spent / self.limit:.1%} spent"
        if self.dimension is None:
            return share
        spent, limit = (Quantity(amount, self.dimension) for amount in (self.spent, self.limit))
        return f"{share}: {spent} of {limit}"

    def units(self, task: str) -> tuple[str, ...]:
        """The units of a task, forward order."""
        return tuple(dict.fromkeys(span.unit for span in self.spans[task]))


def build_timeline(events: Sequence[Event]) -> Timeline:
    """Read the spans off the stream.

    Raises:
        ValueError: the stream has no plan, or no budget above zero.
    """
    plans = [event for event in events if isinstance(event, PlanDecided)]
    if not plans:
        msg = f"Expected `events` to hold a decided plan, but got {len(events)} events without one."
        raise ValueError(msg)
    accounts = [e for e in events if isinstance(e, PlanDecided | CostSpent | RunEnded)]
    started = next((event for event in events if isinstance(event, RunStarted)), None)
    planned = [event.planned for event in events if isinstance(event, CostSpent)]
    spent, limit = max(event.spent for event in accounts), _limit(accounts)
    return Timeline(
        budget=started.budget if started else "budget",
        dimension=started.dimension if started else None,
        limit=limit,
        spent=spent,
        planned=planned[-1] if planned else math.nan,
        spans={
            task: _spans([e for e in plans if e.plan.task == task], spent, limit)
            for task in dict.fromkeys(event.plan.task for event in plans)
        },
        epochs=tuple(
            (after.epoch, before.spent / limit)
            for before, after in pairwise(accounts)
            if after.epoch > before.epoch
        ),
    )


def _limit(accounts: Sequence[PlanDecided | CostSpent | RunEnded]) -> float:
    """The budget, as the latest event that knows it says."""
    limit = math.nan
    for event in accounts:
        if isinstance(event, RunEnded):
            limit = event.limit
        elif isinstance(event, PlanDecided):
            limit = event.spent + event.remaining
    if not 0 < limit < math.inf:
        msg = f"Expected the budget in `events` to be in (0, inf), but got {limit}."
        raise ValueError(msg)
    return limit


def _spans(plans: Sequence[PlanDecided], spent: float, limit: float) -> tuple[Span, ...]:
    """By unit; a plan that keeps a unit's level prolongs its span."""
    by_unit: dict[str, list[Span]] = {}
    ends = [*(event.spent for event in plans[1:]), spent]
    for event, end in zip(plans, ends, strict=True):
        for unit, level in event.plan.items():
            spans = by_unit.setdefault(unit, [])
            if spans and spans[-1].level == level and spans[-1].end == event.spent / limit:
                spans[-1] = replace(spans[-1], end=end / limit)
            else:
                spans.append(Span(unit, level, event.spent / limit, end / limit))
    return tuple(span for spans in by_unit.values() for span in spans)
