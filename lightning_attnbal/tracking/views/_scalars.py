"""From events to numbers that a logger can draw."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from statistics import fmean
from typing import Any, TypeVar

from lightning_attnbal.core import LevelKind
from lightning_attnbal.tracking._detail_events import AttentionMeasured, TimeSpent
from lightning_attnbal.tracking._event import Event
from lightning_attnbal.tracking._events import (
    CacheUsed,
    ContributionMeasured,
    CostSpent,
    LoadMeasured,
    PlanDecided,
    RunEnded,
)
from lightning_attnbal.tracking._task_events import AffinityMeasured, SharesDecided, TasksServed
from lightning_attnbal.tracking.views._keys import Key

_BAND = 2.0  # standard deviations on either side of a forecast, about 95 %
EventT = TypeVar("EventT", bound=Event)


class ScalarReader:
    """Reads the scalars off a stream, event by event.

    It remembers the limit and the reference cost it was told, since shares and savings need them;
    so every event must pass, in order. What is not finite was not measured, and is left out.

    Example:
        >>> from lightning_attnbal.core import Plan
        >>> reader = ScalarReader()
        >>> plan = Plan({"layer.0": "frozen", "head": "full"}, cost_per_step=2.0, shadow_price=0.1)
        >>> read = reader(PlanDecided(plan=plan, spent=10.0, remaining=90.0))
        >>> read[Key.PLAN_TRAINED], read[Key.BUDGET_LIMIT]
        (1, 100.0)
        >>> reader(CostSpent(spent=40.0, planned=41.0, seconds=1.0, flops=40.0))[Key.BUDGET_SHARE]
        0.4
    """

    def __init__(self) -> None:
        self._limit = math.nan
        self._reference = math.nan

    def __call__(self, event: Event) -> dict[str, float]:
        """Log key → value for one event; empty if there is nothing to draw."""
        self._remember(event)
        values = dict(_READERS[type(event)](event)) if type(event) in _READERS else {}
        if isinstance(event, CostSpent | RunEnded):
            values[Key.BUDGET_SHARE] = event.spent / self._limit
        if isinstance(event, RunEnded):
            values[Key.BUDGET_SAVED] = self._reference - event.spent
        if isinstance(event, PlanDecided | RunEnded):
            values[Key.BUDGET_LIMIT] = self._limit
        return {str(key): value for key, value in values.items() if math.isfinite(value)}

    def _remember(self, event: Event) -> None:
        if isinstance(event, LoadMeasured):
            self._reference = event.reference_cost
        if isinstance(event, PlanDecided | RunEnded):
            limit = event.limit if isinstance(event, RunEnded) else event.spent + event.remaining
            self._limit = limit if 0 < limit < math.inf else self._limit


_READERS: dict[type[Event], Callable[[Any], Mapping[str, float]]] = {}


def _reads(
    kind: type[EventT],
) -> Callable[[Callable[[EventT], Mapping[str, float]]], Callable[[EventT], Mapping[str, float]]]:
    """Registers the reader of one kind of event."""

    def register(reader: Callable[[EventT], Mapping[str, float]]) -> Any:
        _READERS[kind] = reader
        return reader

    return register


@_reads(CostSpent)
def _cost(event: CostSpent) -> dict[str, float]:
    rate = math.nan if event.learning_rate is None else event.learning_rate
    return {
        Key.BUDGET_SPENT: event.spent,
        Key.BUDGET_PLANNED: event.planned,
        Key.BUDGET_SECONDS: event.seconds,
        Key.BUDGET_FLOPS: event.flops,
        Key.PLAN_LEARNING_RATE: rate,
    }


@_reads(RunEnded)
def _end(event: RunEnded) -> dict[str, float]:
    return {Key.BUDGET_SPENT: event.spent}


@_reads(PlanDecided)
def _plan(event: PlanDecided) -> dict[str, float]:
    plan = event.plan
    values = {
        Key.PLAN_TRAINED: len(plan.trained),
        Key.PLAN_CACHED: sum(level.kind is LevelKind.CACHED for level in plan.values()),
        Key.PLAN_CHANGES: len(event.changes),
        Key.PLAN_LR_FACTOR: plan.lr_factor,
        Key.LOAD_PROBE_FLOPS: event.probe_flops,
    }
    if plan.cost_per_step:  # an unpriced plan is one that nobody solved for
        values |= {
            Key.PLAN_COST: plan.cost_per_step,
            Key.PLAN_VALUE: plan.value,
            Key.BUDGET_SHADOW_PRICE: plan.shadow_price,
        }
    if plan.forecast is not None:
        mean, std = plan.forecast
        values |= {
            Key.FORECAST_MEAN: mean,
            Key.FORECAST_STD: std,
            Key.FORECAST_LOW: mean - _BAND * std,
            Key.FORECAST_HIGH: mean + _BAND * std,
        }
    return {key.of_task(plan.task): value for key, value in values.items()}


@_reads(LoadMeasured)
def _load(event: LoadMeasured) -> dict[str, float]:
    total = sum(event.flops.values())
    return {
        Key.LOAD_REFERENCE: event.reference_cost,
        Key.LOAD_LARGEST_SHARE: max(event.flops.values()) / total if total else math.nan,
        Key.LOAD_SAVED_BYTES: sum(event.saved_bytes.values()),
    }


@_reads(ContributionMeasured)
def _contribution(event: ContributionMeasured) -> dict[str, float]:
    return {Key.LOAD_CONTRIBUTION.of_task(event.task): sum(event.values.values())}


@_reads(CacheUsed)
def _cache(event: CacheUsed) -> dict[str, float]:
    return {
        Key.LOAD_CACHE_READ: event.rows_read / event.rows if event.rows else math.nan,
        Key.LOAD_CACHE_BYTES: event.ram_bytes + event.disk_bytes,
        Key.LOAD_CACHE_FLOPS: event.flops_saved,
    }


@_reads(SharesDecided)
def _shares(event: SharesDecided) -> dict[str, float]:
    return {Key.TASK_SHARE.of(task): share for task, share in event.shares.items()}


@_reads(TasksServed)
def _served(event: TasksServed) -> dict[str, float]:
    return {
        **{Key.TASK_BATCHES.of(task): number for task, number in event.batches.items()},
        **{Key.TASK_SPENT.of(task): spent for task, spent in event.spent.items()},
        **{Key.TASK_LOSS.of(task): loss for task, loss in event.losses.items()},
    }


@_reads(AffinityMeasured)
def _affinity(event: AffinityMeasured) -> dict[str, float]:
    return {
        Key.TASK_AFFINITY.of(helper, helped): value
        for helper, row in zip(event.tasks, event.affinity, strict=True)
        for helped, value in zip(event.tasks, row, strict=True)
        if helper != helped
    }


@_reads(AttentionMeasured)
def _attention(event: AttentionMeasured) -> dict[str, float]:
    heads = [value for layer in event.entropy.values() for value in layer if math.isfinite(value)]
    if not heads:
        return {}
    return {Key.ATTENTION_ENTROPY: fmean(heads), Key.ATTENTION_LOWEST: min(heads)}


@_reads(TimeSpent)
def _time(event: TimeSpent) -> dict[str, float]:
    return {Key.TIME.of(part): seconds for part, seconds in event.seconds.items()}
