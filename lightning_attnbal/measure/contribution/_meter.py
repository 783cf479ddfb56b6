"""What all contribution meters share: book-keeping, checkpoints, ranks."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, Generic, Literal, TypeVar

import torch

from lightning_attnbal.core import Unit
from lightning_attnbal.measure.contribution._estimate import Contribution, Moments, merge_moments

Sample = TypeVar("Sample")

Reduction = Literal["moments", "sum", "own"]
"""How the ranks' values of one state become one; "own" stays what it is in the merging meter."""

_REDUCE: dict[str, Callable[[Iterable[Any]], Any]] = {"moments": merge_moments, "sum": sum}


class ContributionMeter(ABC, Generic[Sample]):
    """Collects estimates per unit; a meter overrides `estimate`, one sample in, one number out.

    Estimates that are not finite (a NaN loss) are counted in `skipped` and otherwise ignored. A
    unit that gets no samples keeps its last estimates.

    Args:
        units: the units that may be measured.

    Attributes:
        REDUCTIONS: the names in `state_dict`, and how ranks combine each.
        skipped: how many estimates were not finite, over all units.

    Example:
        >>> from lightning_attnbal.core import UnitKind
        >>> class ParameterNormMeter(ContributionMeter[torch.Tensor]):
        ...     def estimate(self, unit, sample):
        ...         return float(sample.norm())
        >>> meter = ParameterNormMeter([Unit("head", 0, UnitKind.HEAD, ("",), ("weight",), 2)])
        >>> meter.add("head", torch.tensor([3.0, 4.0]))
        >>> meter.add("head", torch.tensor([math.nan]))
        >>> meter.compute()["head"], meter.skipped
        (Contribution(mean=5.0, std_error=inf, count=1), 1)
    """

    REDUCTIONS: ClassVar[Mapping[str, Reduction]] = {"moments": "moments", "skipped": "sum"}

    def __init__(self, units: Sequence[Unit]) -> None:
        self._names = tuple(unit.name for unit in units)
        self._moments: dict[str, Moments] = {}
        self.skipped = 0

    @abstractmethod
    def estimate(self, unit: str, sample: Sample) -> float | None:
        """One estimate for `unit`; None where this sample doesn't complete one yet."""

    @torch.no_grad()
    def add(self, unit: str, sample: Sample) -> None:
        """Take in one sample of `unit`.

        Raises:
            ValueError: the meter doesn't know the unit.
        """
        if unit not in self._names:
            known = ", ".join(repr(name) for name in self._names)
            msg = f"Expected `unit` to be one of {known}, but got {unit!r}."
            raise ValueError(msg)
        value = self.estimate(unit, sample)
        if value is None:
            return
        if math.isfinite(value):
            self._moments[unit] = self._moments.get(unit, Moments()).plus(value)
        else:
            self.skipped += 1

    def forget(self, units: Iterable[str]) -> None:
        """Start the estimates of `units` afresh, because new ones are about to be collected."""
        for name in units:
            self._moments.pop(name, None)

    def compute(self) -> dict[str, Contribution]:
        """The estimates so far, for the units that have any."""
        return {name: moments.contribution() for name, moments in self._moments.items()}

    def merge(self, states: Iterable[Mapping[str, Any]]) -> None:
        """Become the meter that took in what all of `states` took in, in place of its own.

        Give it every rank's `state_dict`. Merge into a meter of its own, so that those that go on
        collecting don't count the shared part again. Where ranks see the same gradients (DDP
        averages them before the step) their estimates are copies of each other: take one rank's
        instead, a merge would make the standard error too small.
        """
        states = list(states)
        merged = {
            name: _REDUCE[how]([state[name] for state in states])
            for name, how in self.REDUCTIONS.items()
            if how != "own"
        }
        self.load_state_dict(self.state_dict() | merged)

    def state_dict(self) -> dict[str, Any]:
        """Plain data for a checkpoint."""
        moments = {name: [m.count, m.mean, m.square] for name, m in self._moments.items()}
        return {"moments": moments, "skipped": self.skipped}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave; estimates of units that no longer exist are dropped."""
        self._moments = {
            name: Moments(int(count), float(mean), float(square))
            for name, (count, mean, square) in state["moments"].items()
            if name in self._names
        }
        self.skipped = int(state["skipped"])
