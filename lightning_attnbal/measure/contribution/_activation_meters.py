"""Meters of what units put out on a fixed batch, without labels or gradients."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor
from typing_extensions import override

from lightning_attnbal.core import Unit
from lightning_attnbal.measure.contribution._activations import (
    activation_change,
    similarity,
    similarity_distance,
)
from lightning_attnbal.measure.contribution._meter import ContributionMeter, Reduction


class ActivationMeter(ContributionMeter[Tensor], ABC):
    """Compares each output of a unit with one that it keeps; the first one only begins.

    An output with NaN or inf is counted in `skipped` and never kept.
    """

    REDUCTIONS: ClassVar[Mapping[str, Reduction]] = {
        **ContributionMeter.REDUCTIONS,
        "references": "own",
    }

    def __init__(self, units: Sequence[Unit]) -> None:
        super().__init__(units)
        self._references: dict[str, Tensor] = {}

    @abstractmethod
    def compare(self, unit: str, activation: Tensor) -> float | None:
        """The estimate for an output that is finite; keeps what later ones are compared with."""

    @override
    def estimate(self, unit: str, sample: Tensor) -> float | None:
        return self.compare(unit, sample) if bool(sample.isfinite().all()) else math.nan

    @override
    def forget(self, units: Iterable[str]) -> None:
        units = list(units)
        super().forget(units)
        for name in units:
            self._references.pop(name, None)

    @override
    def state_dict(self) -> dict[str, Any]:
        references = {name: r.cpu().clone() for name, r in self._references.items()}
        return super().state_dict() | {"references": references}

    @override
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        found = state["references"].items()
        self._references = {name: r.clone() for name, r in found if name in self._names}


class ActivationChangeMeter(ActivationMeter):
    """Collects `activation_change` per unit between each two outputs that follow one another.

    Call `add(unit, activation)` with the unit's output on the same inputs each time, in the same
    mode (evaluation mode, or dropout is what is measured). Keeps the last output of each unit.

    State (`state_dict`): per unit count, mean and sum of squared deviations, combined over ranks
    exactly, and the last output, which each rank keeps to itself. All saved and restored.

    Args:
        units: the units that may be measured.

    Example:
        >>> import torch
        >>> from lightning_attnbal.core import UnitKind
        >>> meter = ActivationChangeMeter([Unit("head", 0, UnitKind.HEAD, ("",), ("weight",), 2)])
        >>> for output in (4.0, 5.0, 5.0):
        ...     meter.add("head", torch.tensor([output]))
        >>> meter.compute()["head"].mean  # changes of 1/4 and 0
        0.125
    """

    @override
    def compare(self, unit: str, activation: Tensor) -> float | None:
        before = self._references.get(unit)
        change = before if before is None else activation_change(before.to(activation), activation)
        self._references[unit] = activation.detach().clone()
        return change


class PlasticityMeter(ActivationMeter):
    """Collects `plasticity` per unit against the first output it was given since `renew`.

    Call `add(unit, activation)` with the unit's output on the same batch each time. Keeps the
    similarities of the reference, B × B numbers for B samples, not the output itself.

    State (`state_dict`): per unit count, mean and sum of squared deviations, combined over ranks
    exactly, and the reference, which each rank keeps to itself. All saved and restored.

    Args:
        units: the units that may be measured.

    Example:
        >>> import torch
        >>> from lightning_attnbal.core import UnitKind
        >>> meter = PlasticityMeter([Unit("head", 0, UnitKind.HEAD, ("",), ("weight",), 2)])
        >>> for output in (torch.eye(2), 3 * torch.eye(2), torch.ones(2, 2)):
        ...     meter.add("head", output)
        >>> round(meter.compute()["head"].mean, 3)  # 0 and 0.293
        0.146
    """

    def renew(self) -> None:
        """Take the next output of every unit as its reference; the estimates stay."""
        self._references = {}

    @override
    def compare(self, unit: str, activation: Tensor) -> float | None:
        now = similarity(activation)
        if unit not in self._references:
            self._references[unit] = now
            return None
        return similarity_distance(now, self._references[unit].to(now.device))
