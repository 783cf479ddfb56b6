"""What a report says in words and numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lightning_attnbal.core import Dimension, Quantity
from lightning_attnbal.tracking._detail_events import ScoresMeasured
from lightning_attnbal.tracking._events import (
    CacheUsed,
    CostSpent,
    LoadMeasured,
    Notice,
    RunEnded,
    RunStarted,
)
from lightning_attnbal.tracking.charts._drawing import Table
from lightning_attnbal.tracking.charts._stream import Stream

_MAX_SCORES, _MAX_NOTICES = 4, 100
_UNKNOWN = "–"


@dataclass(frozen=True)
class Fact:
    """One number of the headline.

    Args:
        name: what it is.
        value: the number in words.
        note: what it means.
    """

    name: str
    value: str
    note: str = ""


def headline(stream: Stream) -> list[Fact]:
    """Budget, spent, saved, time, quality: as far as the stream knows them."""
    started = stream.last(RunStarted)
    facts = [Fact("Budget", started.budget if started else _UNKNOWN, _limit(stream))]
    facts.append(Fact("Spent", *_spent(stream)))
    facts += _saved(stream)
    costs = stream.last(CostSpent)
    if costs is not None:
        facts.append(Fact("Time", _seconds(costs.seconds), f"{costs.step:,} optimizer steps"))
    used = stream.last(CacheUsed)
    if used is not None and used.rows:
        facts.append(Fact("Cache", f"{used.rows_read / used.rows:.0%}", "of its rows were read"))
    facts += [Fact(name, value, note) for name, value, note in _scores(stream)]
    return facts


def comparison(streams: Mapping[str, Stream]) -> Table:
    """A row per run: what it was allowed, spent, took and reached."""
    scores = {run: _last_scores(stream) for run, stream in streams.items()}
    metrics = list(dict.fromkeys(name for some in scores.values() for name in some))
    metrics = metrics[: 2 * _MAX_SCORES]
    rows = []
    for run, stream in streams.items():
        facts = {fact.name: fact.value for fact in headline(stream)}
        cells = [facts.get(name, _UNKNOWN) for name in ("Budget", "Spent", "Saved", "Time")]
        known = scores[run]
        cells += [f"{known[name]:.4g}" if name in known else _UNKNOWN for name in metrics]
        rows.append((run, *cells))
    return Table(("run", "budget", "spent", "saved", "time", *metrics), rows)


def notices(stream: Stream) -> Table | None:
    """What a reader should know, oldest first; the oldest are left out where there are many."""
    said = [(f"{e.step:,}", e.text) for e in stream.all(Notice)]
    used = stream.last(CacheUsed)
    said += [(f"{used.step:,}", problem) for problem in used.problems] if used else []
    return Table(("step", "notice"), said[-_MAX_NOTICES:]) if said else None


def environment(stream: Stream) -> Table | None:
    """What is needed to repeat the run, and to judge its timings."""
    started = stream.last(RunStarted)
    if started is None:
        return None
    where = started.environment
    rows = [
        ("budget", started.budget),
        ("counted in", started.dimension.name.lower()),
        ("seed", "none" if started.seed is None else str(started.seed)),
        ("started", started.started_at),
        ("units", f"{len(started.units):,}"),
        ("parameters", f"{sum(unit.num_parameters for unit in started.units):,}"),
        ("lightning-attnbal", where.attnbal),
        ("Python", where.python),
        ("PyTorch", where.torch),
        ("Lightning", where.lightning),
        ("platform", where.platform),
        ("device", where.device),
        ("threads", str(where.num_threads)),
        ("format of the events", str(started.format_version)),
    ]
    return Table(("what", "value"), rows)


def ending(stream: Stream) -> str:
    """Why the run ended, or that it has not."""
    ended = stream.last(RunEnded)
    return "The run is still going, or was cut short." if ended is None else f"Ended: {ended.why}."


def _limit(stream: Stream) -> str:
    return "" if stream.timeline is None else f"at most {stream.amount(stream.timeline.limit)}"


def _spent(stream: Stream) -> tuple[str, str]:
    if stream.timeline is None:
        return _UNKNOWN, "no plan was decided"
    spent = stream.timeline.spent
    return f"{spent / stream.timeline.limit:.1%}", f"of the budget: {stream.amount(spent)}"


def _saved(stream: Stream) -> list[Fact]:
    """Against the same run with everything trained to its end, where that cost is known."""
    load = stream.last(LoadMeasured)
    if load is None or stream.timeline is None or not load.reference_cost > 0:
        return []
    share = 1 - stream.timeline.spent / load.reference_cost
    note = f"of the full run's {stream.amount(load.reference_cost)}"
    return [Fact("Saved", f"{share:.1%}", note)]


def _last_scores(stream: Stream) -> dict[str, float]:
    return {
        name: value
        for event in stream.all(ScoresMeasured)
        for name, value in event.scores.items()
        if math.isfinite(value)
    }


def _scores(stream: Stream) -> Sequence[tuple[str, str, str]]:
    """The latest scores, with what they were at first."""
    first: dict[str, float] = {}
    for event in stream.all(ScoresMeasured):
        for name, value in event.scores.items():
            first.setdefault(name, value)
    latest = list(_last_scores(stream).items())[:_MAX_SCORES]
    return [(name, f"{value:.4g}", f"{first[name]:.4g} at first") for name, value in latest]


def _seconds(seconds: float) -> str:
    return str(Quantity(seconds, Dimension.SECOND))
