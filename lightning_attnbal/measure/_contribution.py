"""What training a unit is worth: a first-order estimate of the loss decrease it brings."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lightning_attnbal.core import Unit


def gradient_update(before: Sequence[Tensor], parameters: Iterable[Tensor], lr: float) -> float:
    """First-order loss decrease of one optimizer step, per unit of learning rate.

    v = −⟨g, w_after − w_before⟩ / lr, with g the gradient the step was computed from. In loss units
    per unit of learning rate, so that steps taken at different rates compare. Biased upwards: the
    step was computed from the same batch as the gradient.

    Args:
        before: copies of the parameters before the step, any shapes.
        parameters: the same parameters after the step, their `.grad` still holding g; one without a
            gradient counts 0.
        lr: learning rate of the step, in (0, inf).

    Raises:
        ValueError: `lr` is not positive.

    Source:
        Huang, Yang, Shi, Bai, "Towards Green AI in Fine-tuning Large Language Models via Adaptive
        Backpropagation" (GreenTrainer), ICLR 2024, eq. 2: importance = gradient · update. We divide
        by the learning rate and read the update off the weights, which leaves the optimizer alone.

    Example:
        >>> w = torch.nn.Parameter(torch.tensor([1.0, 2.0]))
        >>> w.grad = torch.tensor([0.5, 1.0])
        >>> before = [w.detach().clone()]
        >>> torch.optim.SGD([w], lr=0.1).step()
        >>> round(gradient_update(before, [w], lr=0.1), 4)  # SGD: the squared gradient norm
        1.25
    """
    if not lr > 0:
        msg = f"Expected `lr` to be in (0, inf), but got {lr}."
        raise ValueError(msg)
    dots = [
        torch.sum(p.grad.detach() * (p.detach() - b), dtype=torch.float32)
        for b, p in zip(before, parameters, strict=True)
        if p.grad is not None and not p.grad.is_sparse
    ]
    return -float(torch.stack([d.cpu() for d in dots]).sum()) / lr if dots else 0.0


@dataclass(frozen=True, slots=True)
class Contribution:
    """Mean of the estimates for one unit, with its uncertainty.

    Args:
        mean: loss decrease per unit of learning rate.
        std_error: standard error of the mean; inf for fewer than two estimates.
        count: how many estimates it rests on.

    Example:
        >>> Contribution(mean=0.5, std_error=0.1, count=4).mean
        0.5
    """

    mean: float
    std_error: float
    count: int


class GradientUpdateMeter:
    """Collects `gradient_update` per unit from steps that run anyway.

    Call `before_step` just before an optimizer step and `after_step` right after it, while the
    gradients are still there. Estimates that are not finite (a NaN loss) are counted in `skipped`
    and otherwise ignored. A unit that is not trained keeps its last estimates.

    State (`state_dict`): per unit count, mean and sum of squared deviations; saved and restored,
    combined over ranks by sum.

    Args:
        model: the model the units belong to.
        units: the units, forward order.

    Example:
        >>> from lightning_attnbal.core import Unit, UnitKind
        >>> model = nn.Linear(2, 1)
        >>> unit = Unit("head", 0, UnitKind.HEAD, ("",), ("weight", "bias"), 3)
        >>> meter = GradientUpdateMeter(model, [unit])
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> for _ in range(2):
        ...     optimizer.zero_grad()
        ...     model(torch.ones(4, 2)).sum().backward()
        ...     meter.before_step()
        ...     optimizer.step()
        ...     meter.after_step([optimizer])
        >>> meter.compute()["head"].count, round(meter.compute()["head"].mean, 2)
        (2, 48.0)
    """

    def __init__(self, model: nn.Module, units: Sequence[Unit]) -> None:
        parameters = dict(model.named_parameters(remove_duplicate=False))
        self._parameters = {u.name: [parameters[n] for n in u.parameters] for u in units}
        self._before: dict[str, list[tuple[nn.Parameter, Tensor]]] = {}
        self._moments: dict[str, tuple[int, float, float]] = {}
        self.skipped = 0

    @torch.no_grad()
    def before_step(self) -> None:
        """Copy the weights of every unit that is about to move."""
        self._before = {
            name: [(p, p.detach().clone()) for p in parameters if p.grad is not None]
            for name, parameters in self._parameters.items()
        }

    @torch.no_grad()
    def after_step(self, optimizers: Sequence[torch.optim.Optimizer]) -> None:
        """Compare with the weights after the step and add one estimate per unit that trained."""
        rate = {
            id(p): float(g["lr"]) for o in optimizers for g in o.param_groups for p in g["params"]
        }
        for name, pairs in self._before.items():
            moved = [(p, b) for p, b in pairs if rate.get(id(p), 0.0) > 0]
            if moved:
                self._add(name, sum(gradient_update([b], [p], rate[id(p)]) for p, b in moved))
        self._before = {}

    def _add(self, unit: str, value: float) -> None:
        """Welford's update of count, mean and sum of squared deviations."""
        if not math.isfinite(value):
            self.skipped += 1
            return
        count, mean, square = self._moments.get(unit, (0, 0.0, 0.0))
        delta = value - mean
        mean += delta / (count + 1)
        self._moments[unit] = (count + 1, mean, square + delta * (value - mean))

    def forget(self, units: Iterable[str]) -> None:
        """Start the estimates of `units` afresh, because new ones are about to be collected."""
        for name in units:
            self._moments.pop(name, None)

    def compute(self) -> dict[str, Contribution]:
        """The estimates so far, for the units that have any."""
        return {
            name: Contribution(mean, math.sqrt(square / (n - 1) / n) if n > 1 else math.inf, n)
            for name, (n, mean, square) in self._moments.items()
        }

    def state_dict(self) -> dict[str, Any]:
        """Plain data for a checkpoint."""
        return {"moments": {k: list(v) for k, v in self._moments.items()}, "skipped": self.skipped}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave; estimates of units that no longer exist are dropped."""
        self._moments = {
            name: (int(n), float(mean), float(square))
            for name, (n, mean, square) in state["moments"].items()
            if name in self._parameters
        }
        self.skipped = int(state["skipped"])
