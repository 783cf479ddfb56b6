"""What a run has done so far: which units trained for how many steps, at which loss."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from lightning_attnbal.core import Problem, check_number


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """Consecutive optimizer steps under one plan.

    Args:
        trained: names of the units that trained.
        steps: how many steps, in (0, inf).
        loss: mean training loss over them, NaN if unknown.

    Raises:
        ValueError: `steps` is out of range.

    Example:
        >>> Segment(trained=("head",), steps=10, loss=0.7).steps
        10.0
    """

    trained: tuple[str, ...]
    steps: float
    loss: float = math.nan

    def __post_init__(self) -> None:
        object.__setattr__(self, "trained", tuple(self.trained))
        object.__setattr__(self, "steps", check_number("steps", self.steps, low=0, low_open=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """The run so far, as a forecast needs it.

    Args:
        segments: in order.
        fresh: names of units that had never been trained when the run began.

    Example:
        >>> run = Progress(segments=(Segment(trained=("head",), steps=10, loss=0.7),))
        >>> run.steps, Progress.from_dict(run.to_dict()) == run
        (10.0, True)
    """

    segments: tuple[Segment, ...] = ()
    fresh: frozenset[str] = frozenset()

    @property
    def steps(self) -> float:
        """Optimizer steps taken."""
        return sum(segment.steps for segment in self.segments)

    def must_train(self, problem: Problem) -> frozenset[str]:
        """Names of the units that can train and were never trained: no plan is to freeze them."""
        able = (m.unit for m in problem.menus if any(o.level.is_trained for o in m.options))
        return self.fresh.intersection(able)

    def is_from_scratch(self, units: Collection[str]) -> bool:
        """Whether most of `units` had never been trained when the run began."""
        return 2 * len(self.fresh.intersection(units)) > len(units)

    def without_losses(self) -> Progress:
        """The same with the losses forgotten."""
        segments = (Segment(trained=s.trained, steps=s.steps) for s in self.segments)
        return Progress(segments=tuple(segments), fresh=self.fresh)

    def to_dict(self) -> dict[str, Any]:
        """Plain data that JSON can hold."""
        return {
            "segments": [(list(s.trained), s.steps, s.loss) for s in self.segments],
            "fresh": sorted(self.fresh),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Progress:
        """Restore what `to_dict` gave."""
        return cls(
            segments=tuple(Segment(trained=t, steps=n, loss=x) for t, n, x in data["segments"]),
            fresh=frozenset(data["fresh"]),
        )


def merged(segments: Iterable[Segment], most: int) -> tuple[Segment, ...]:
    """At most about `most` segments: neighbours under one plan are joined, two by two.

    Example:
        >>> parts = [Segment(trained=("a",), steps=1, loss=x) for x in (4.0, 2.0, 1.0, 1.0)]
        >>> [(s.steps, s.loss) for s in merged(parts, most=2)]
        [(2.0, 3.0), (2.0, 1.0)]
    """
    found = list(segments)
    while len(found) > most:
        joined: list[Segment] = []
        waiting: Segment | None = None
        for segment in found:
            if waiting is not None and waiting.trained == segment.trained:
                joined[-1] = _join(waiting, segment)
                waiting = None
            else:
                joined.append(segment)
                waiting = segment
        if len(joined) == len(found):
            break
        found = joined
    return tuple(found)


def _join(a: Segment, b: Segment) -> Segment:
    steps = a.steps + b.steps
    if math.isnan(a.loss) or math.isnan(b.loss):
        loss = b.loss if math.isnan(a.loss) else a.loss
    else:
        loss = (a.loss * a.steps + b.loss * b.steps) / steps
    return Segment(trained=a.trained, steps=steps, loss=loss)
