"""Share rules that look at sizes alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from typing_extensions import override

from lightning_attnbal.core import check_number
from lightning_attnbal.multitask._rules import ShareRule, TaskStatus, normalised


@dataclass(frozen=True, slots=True)
class Proportional(ShareRule):
    """Share of task i ∝ n_i, its number of batches: one pass over all data together.

    Example:
        >>> a, b = (TaskStatus(name=name, num_batches=n) for name, n in (("a", 9), ("b", 1)))
        >>> Proportional()([a, b])
        {'a': 0.9, 'b': 0.1}
    """

    @override
    def shares(self, statuses: Sequence[TaskStatus]) -> Mapping[str, float]:
        return normalised(statuses, [float(status.num_batches) for status in statuses])


@dataclass(frozen=True, slots=True)
class Uniform(ShareRule):
    """The same share for every task; small ones are gone over again and again.

    Example:
        >>> Uniform()([TaskStatus(name="a", num_batches=9), TaskStatus(name="b", num_batches=1)])
        {'a': 0.5, 'b': 0.5}
    """

    @override
    def shares(self, statuses: Sequence[TaskStatus]) -> Mapping[str, float]:
        return normalised(statuses, [1.0] * len(statuses))


@dataclass(frozen=True, slots=True)
class Temperature(ShareRule):
    """Share of task i ∝ n_i^(1 / tau): proportional at tau = 1, uniform at tau = inf.

    Args:
        tau: in (0, inf], above 1 in practice.

    Raises:
        TypeError: `tau` is not a number.
        ValueError: it is out of range.

    Source: Arivazhagan et al., *Massively multilingual neural machine translation in the wild:
        findings and challenges*, 2019, section 4.2.

    Example:
        >>> a, b = (TaskStatus(name=name, num_batches=n) for name, n in (("a", 9), ("b", 1)))
        >>> Temperature(2)([a, b])
        {'a': 0.75, 'b': 0.25}
    """

    tau: float

    def __post_init__(self) -> None:
        if self.tau != math.inf:
            check_number("tau", self.tau, low=0, low_open=True)

    @override
    def shares(self, statuses: Sequence[TaskStatus]) -> Mapping[str, float]:
        most = max(status.num_batches for status in statuses)
        return normalised(
            statuses, [(status.num_batches / most) ** (1 / self.tau) for status in statuses]
        )


@dataclass(frozen=True, slots=True)
class RoundRobin(ShareRule):
    """One batch each in turn; a task that is through with its data waits until all are.

    The same share for the tasks with the fewest complete passes, floor(served / n_i), and 0 for the
    others. It is `Uniform` until the smallest task has been seen once, and `Proportional` over a
    whole pass.

    Example:
        >>> RoundRobin()([TaskStatus(name="a", num_batches=9, batches=1),
        ...               TaskStatus(name="b", num_batches=1, batches=1)])
        {'a': 1.0, 'b': 0.0}
    """

    @override
    def shares(self, statuses: Sequence[TaskStatus]) -> Mapping[str, float]:
        passes = {s.name: s.batches // s.num_batches for s in statuses}
        behind = min((passes[s.name] for s in statuses if not s.is_done), default=0)
        return normalised(statuses, [float(passes[s.name] == behind) for s in statuses])
