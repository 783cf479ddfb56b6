"""What happens between the tasks of a run: who is served, and whom that helps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from lightning_attnbal.tracking._event import Event


@dataclass(frozen=True, kw_only=True)
class SharesDecided(Event):
    """Which task gets which share of the batches from now on.

    Args:
        shares: task → share, in [0, 1]; they sum to 1.
        batches: task → whole batches of the coming epoch.
        reasons: task → why, as text.
        rule: the rule that decided.

    Example:
        >>> SharesDecided(shares={"a": 0.75, "b": 0.25}, batches={"a": 3, "b": 1}, rule="x").kind
        'shares_decided'
    """

    kind: ClassVar[str] = "shares_decided"

    shares: Mapping[str, float]
    batches: Mapping[str, int]
    reasons: Mapping[str, str] = field(default_factory=dict)
    rule: str = ""


@dataclass(frozen=True, kw_only=True)
class TasksServed(Event):
    """What tasks got so far. Totals of the run, so a lost event loses nothing.

    Args:
        batches: task → batches served.
        spent: task → what they cost, in the dimension of the budget.
        losses: task → mean training loss of its latest batches, NaN if unknown.

    Example:
        >>> TasksServed(batches={"a": 9}, spent={"a": 2e9}, losses={"a": 0.4}).batches["a"]
        9
    """

    kind: ClassVar[str] = "tasks_served"

    batches: Mapping[str, int]
    spent: Mapping[str, float]
    losses: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class AffinityMeasured(Event):
    """What a step of one task does for another, relative to what each does for itself.

    Args:
        tasks: T names, the order of rows and columns.
        affinity: (T, T); row i, column k: a step of task i seen by task k, about in [-1, 1].
        errors: (T, T), standard errors.

    Example:
        >>> AffinityMeasured(
        ...     tasks=("a", "b"), affinity=((1.0, -0.2), (-0.1, 1.0)), errors=((0, 0.1), (0.1, 0))
        ... ).affinity[0][1]
        -0.2
    """

    kind: ClassVar[str] = "affinity_measured"

    tasks: tuple[str, ...]
    affinity: tuple[tuple[float, ...], ...]
    errors: tuple[tuple[float, ...], ...] = ()
