"""How a run ended, or stands: the few figures by which runs are told apart."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from lightning_attnbal.core import Dimension
from lightning_attnbal.tracking._codec import encode
from lightning_attnbal.tracking._detail_events import (
    FrontierPoint,
    FrontierSolved,
    ScoresMeasured,
)
from lightning_attnbal.tracking._event import Event
from lightning_attnbal.tracking._events import (
    CostSpent,
    LoadMeasured,
    PlanDecided,
    RunEnded,
    RunStarted,
)

EventT = TypeVar("EventT", bound=Event)


@dataclass(frozen=True, kw_only=True)
class RunOutcome:
    """What one run was given, spent and reached. NaN and "" stand for what was not recorded.

    Args:
        name: of the run.
        budget: as text, such as "40% of the full run".
        dimension: of `spent`, `limit` and `reference`.
        spent: budget spent.
        limit: the budget.
        reference: cost of the same run with nothing balanced.
        seconds: wall-clock time charged.
        flops: FLOPs charged.
        steps: optimizer steps taken.
        scores: metric → value at the last validation that had it.
        forecast: loss that the last decision expected at the run's end.
        forecast_error: standard deviation of it.
        plan: the last plan, in words.
        ended: why it ended; "" while it runs, or where it was killed.
        units: unit name → number of parameters, in forward order.
        host: device and threads, by which seconds can be compared.

    Example:
        >>> from lightning_attnbal.tracking import RunEnded
        >>> outcome = RunOutcome.of("a", [RunEnded(step=9, why="budget spent", spent=6, limit=8)])
        >>> outcome.steps, outcome.ended, outcome.spent / outcome.limit
        (9, 'budget spent', 0.75)
    """

    name: str
    budget: str
    dimension: Dimension | None
    spent: float
    limit: float
    reference: float
    seconds: float
    flops: float
    steps: int
    scores: Mapping[str, float]
    forecast: float
    forecast_error: float
    plan: str
    ended: str
    units: Mapping[str, int]
    host: str

    @classmethod
    def of(cls, name: str, events: Sequence[Event]) -> RunOutcome:
        """Read the figures off an event stream.

        Raises:
            ValueError: there are no events.
        """
        if not events:
            msg = f"Expected run {name!r} to hold events, but it is empty."
            raise ValueError(msg)
        start, load = _last(events, RunStarted), _last(events, LoadMeasured)
        plan, cost = _last(events, PlanDecided), _last(events, CostSpent)
        end, point = _last(events, RunEnded), _chosen(events)
        spent, limit = _account(plan, cost, end)
        host = start.environment if start else None
        return cls(
            name=name,
            budget=start.budget if start else "",
            dimension=start.dimension if start else None,
            spent=spent,
            limit=limit,
            reference=load.reference_cost if load else math.nan,
            seconds=cost.seconds if cost else math.nan,
            flops=cost.flops if cost else math.nan,
            steps=max(event.step for event in events),
            scores=_scores(events),
            forecast=point.loss if point else math.nan,
            forecast_error=point.error if point else math.nan,
            plan=str(plan.plan) if plan else "",
            ended=end.why if end else "",
            units={unit.name: unit.num_parameters for unit in start.units} if start else {},
            host=f"{host.device}, {host.num_threads} threads" if host else "",
        )

    @property
    def saved(self) -> float:
        """Share of the reference that was not spent, in (-inf, 1]; NaN if that is not known."""
        return 1 - self.spent / self.reference if self.reference > 0 else math.nan

    def to_dict(self) -> dict[str, Any]:
        """Plain data that JSON can hold; what was not recorded is None or ""."""
        fields: dict[str, Any] = encode(self)
        return {**fields, "saved": encode(self.saved)}


def _last(events: Sequence[Event], kind: type[EventT]) -> EventT | None:
    return next((event for event in reversed(events) if isinstance(event, kind)), None)


def _account(
    plan: PlanDecided | None, cost: CostSpent | None, end: RunEnded | None
) -> tuple[float, float]:
    """(spent, limit) as the latest events that know them say."""
    if end is not None:
        return end.spent, end.limit
    spent = max((event.spent for event in (plan, cost) if event is not None), default=math.nan)
    return spent, math.nan if plan is None else plan.spent + plan.remaining


def _scores(events: Sequence[Event]) -> dict[str, float]:
    found = (event.scores for event in events if isinstance(event, ScoresMeasured))
    return {metric: value for scores in found for metric, value in scores.items()}


def _chosen(events: Sequence[Event]) -> FrontierPoint | None:
    """The point that the last decision with a forecast chose."""
    solved = (event for event in reversed(events) if isinstance(event, FrontierSolved))
    points = (point for event in solved for point in event.points)
    return next((p for p in points if p.is_chosen and not math.isnan(p.loss)), None)
