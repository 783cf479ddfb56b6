"""Meters of training gradients, for comparison with those of the loss decrease."""

from __future__ import annotations

import math
from abc import ABC
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from typing_extensions import override

from lightning_attnbal.core import Unit, check_integer
from lightning_attnbal.measure.contribution._gradients import (
    NormOrder,
    fisher_trace,
    gradient_norm,
    relative_gradient_change,
)
from lightning_attnbal.measure.contribution._meter import ContributionMeter, Reduction
from lightning_attnbal.measure.contribution._tensors import wide
from lightning_attnbal.measure.contribution._units import learning_rates, unit_parameters


class GradientMeter(ContributionMeter[Sequence[Tensor]], ABC):
    """Hands the gradients of a step that runs anyway to `estimate`, unit by unit.

    A parameter of a training unit that got no gradient, or doesn't move, counts as zeros.
    """

    def __init__(self, model: nn.Module, units: Sequence[Unit]) -> None:
        super().__init__(units)
        self._parameters = unit_parameters(model, units)

    def before_step(self) -> None:
        """Nothing to do: all is read after the step. Here so that meters are interchangeable."""

    @torch.no_grad()
    def after_step(self, optimizers: Sequence[torch.optim.Optimizer]) -> None:
        """Add one sample per unit that trained; the gradients must still be there."""
        rate = learning_rates(optimizers)
        for name, parameters in self._parameters.items():
            gradients = [p.grad if rate.get(id(p), 0.0) > 0 else None for p in parameters]
            if any(g is not None for g in gradients):
                pairs = zip(parameters, gradients, strict=True)
                self.add(name, [torch.zeros_like(p) if g is None else g for p, g in pairs])


class GradientNormMeter(GradientMeter):
    """Collects `gradient_norm` per unit, call for call as `GradientUpdateMeter`.

    State (`state_dict`): per unit count, mean and sum of squared deviations; saved and restored,
    combined over ranks exactly.

    Args:
        model: the model the units belong to.
        units: the units, forward order.
        order: which norm, 2 or 1.

    Example:
        >>> from lightning_attnbal.core import UnitKind
        >>> model = nn.Linear(2, 1, bias=False)
        >>> unit = Unit("head", 0, UnitKind.HEAD, ("",), ("weight",), 2)
        >>> meter = GradientNormMeter(model, [unit])
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> model(torch.tensor([3.0, 4.0])).sum().backward()
        >>> meter.before_step()
        >>> optimizer.step()
        >>> meter.after_step([optimizer])
        >>> meter.compute()["head"].mean
        5.0
    """

    def __init__(self, model: nn.Module, units: Sequence[Unit], *, order: NormOrder = 2) -> None:
        super().__init__(model, units)
        gradient_norm([], order=order)  # refuses an unknown order now
        self._order = order

    @override
    def estimate(self, unit: str, sample: Sequence[Tensor]) -> float:
        return gradient_norm(sample, order=self._order)


class FisherMeter(GradientMeter):
    """Collects `fisher_trace` per unit, call for call as `GradientUpdateMeter`.

    State (`state_dict`): per unit count, mean and sum of squared deviations; saved and restored,
    combined over ranks exactly.

    Args:
        model: the model the units belong to.
        units: the units, forward order.

    Example:
        >>> from lightning_attnbal.core import UnitKind
        >>> model = nn.Linear(2, 1, bias=False)
        >>> unit = Unit("head", 0, UnitKind.HEAD, ("",), ("weight",), 2)
        >>> meter = FisherMeter(model, [unit])
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> model(torch.tensor([3.0, 4.0])).sum().backward()
        >>> meter.before_step()
        >>> optimizer.step()
        >>> meter.after_step([optimizer])
        >>> meter.compute()["head"].mean
        25.0
    """

    @override
    def estimate(self, unit: str, sample: Sequence[Tensor]) -> float:
        return fisher_trace(sample)


class RelativeGradientChangeMeter(GradientMeter):
    """Collects `relative_gradient_change` per unit, call for call as `GradientUpdateMeter`.

    Each unit's gradients are summed over `interval` samples, then the L1 norm of the sum is
    compared with the one before: the first estimate comes after two intervals. Keeps one tensor
    per parameter that trains. A gradient that is not finite is counted in `skipped`, not summed.

    State (`state_dict`): per unit count, mean and sum of squared deviations, combined over ranks
    exactly; the last norm, and the sums of the interval that is going on (tensors as large as the
    weights that train), which each rank keeps to itself. All saved and restored.

    Args:
        model: the model the units belong to.
        units: the units, forward order.
        interval: samples per interval, in [1, inf). AutoFreeze: a fraction of an epoch.

    Raises:
        ValueError: `interval` is out of range.

    Example:
        >>> from lightning_attnbal.core import UnitKind
        >>> model = nn.Linear(1, 1, bias=False)
        >>> unit = Unit("head", 0, UnitKind.HEAD, ("",), ("weight",), 1)
        >>> meter = RelativeGradientChangeMeter(model, [unit], interval=2)
        >>> for gradient in (1.0, 3.0, 2.0, 1.0):  # sums 4 and 3
        ...     meter.add("head", [torch.tensor([[gradient]])])
        >>> meter.compute()["head"].mean
        0.25
    """

    REDUCTIONS: ClassVar[Mapping[str, Reduction]] = {
        **ContributionMeter.REDUCTIONS,
        "norms": "own",
        "counts": "own",
        "sums": "own",
    }

    def __init__(self, model: nn.Module, units: Sequence[Unit], *, interval: int) -> None:
        super().__init__(model, units)
        self.interval = check_integer("interval", interval, low=1)
        self._norms: dict[str, float] = {}
        self._counts: dict[str, int] = {}
        self._sums: dict[str, list[Tensor]] = {}

    @override
    def estimate(self, unit: str, sample: Sequence[Tensor]) -> float | None:
        if not math.isfinite(gradient_norm(sample, order=1)):
            return math.nan
        if unit in self._sums:
            pairs = zip(self._sums[unit], sample, strict=True)
            self._sums[unit] = [s.to(g.device).add_(g) for s, g in pairs]
        else:
            self._sums[unit] = [wide(g).clone() for g in sample]
        self._counts[unit] = self._counts.get(unit, 0) + 1
        return self._close(unit) if self._counts[unit] == self.interval else None

    def _close(self, unit: str) -> float | None:
        """The change of the interval that ends here against the last one, if there was one."""
        previous, current = self._norms.get(unit), gradient_norm(self._sums.pop(unit), order=1)
        self._norms[unit], self._counts[unit] = current, 0
        return None if previous is None else relative_gradient_change(previous, current)

    @override
    def forget(self, units: Iterable[str]) -> None:
        units = list(units)
        super().forget(units)
        for table in (self._norms, self._counts, self._sums):
            for name in units:
                table.pop(name, None)

    @override
    def state_dict(self) -> dict[str, Any]:
        sums = {name: [s.cpu().clone() for s in those] for name, those in self._sums.items()}
        own = {"norms": dict(self._norms), "counts": dict(self._counts), "sums": sums}
        return super().state_dict() | own

    @override
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self._norms = {n: float(v) for n, v in state["norms"].items() if n in self._names}
        self._counts = {n: int(v) for n, v in state["counts"].items() if n in self._names}
        self._sums = {
            n: [s.clone() for s in those] for n, those in state["sums"].items() if n in self._names
        }
