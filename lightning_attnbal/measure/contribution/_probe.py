"""What training units that are frozen would be worth: asked of extra batches, rarely."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lightning_attnbal.core import Unit
from lightning_attnbal.measure.contribution._direction import momentum_gain, update_direction
from lightning_attnbal.measure.contribution._estimate import Contribution
from lightning_attnbal.measure.contribution._first_order import debiased_decrease
from lightning_attnbal.measure.contribution._tensors import wide
from lightning_attnbal.measure.contribution._units import unit_parameters
from lightning_attnbal.measure.contribution._untouched import untouched


def probe_contributions(
    model: nn.Module,
    units: Sequence[Unit],
    loss_fns: Sequence[Callable[[], Tensor]],
    optimizers: Sequence[Optimizer],
) -> dict[str, Contribution]:
    """Debiased loss decrease that training each of `units` would bring, for units that don't train.

    v = mean over pairs i < j of ½ (⟨u(g_i), g_j⟩ + ⟨u(g_j), g_i⟩), with g_i the unit's gradient of
    the i-th loss and u the optimizer's `update_direction` times `momentum_gain`, so that it
    compares with what `CrossBatchMeter` finds for units that train. In loss units per unit of
    learning rate, in (−inf, inf); under `maximize` a loss that rises counts below 0. Unbiased for
    ⟨E u(g), ∇L⟩, see `debiased_decrease`.

    Its uncertainty: the j-th loss adds the estimate c_j, crossed with the mean of those before, and
    std_error = 2 · √(Σ_j (j−1)(c_j − v)² / ((m−2) · m(m−1)/2)) for m losses; inf for two. Right for
    many losses whose gradients agree, up to twice too large where they are all noise.

    One forward and backward pass per loss, down to the lowest of the units; charge them to the
    budget. The training goes on as if nothing had happened (see `untouched`). First order only.
    Memory: two float32 tensors per probed parameter, whatever the number of losses, beside what
    `untouched` and the passes need. Under data parallelism each rank gets its own values: average
    them.

    Args:
        model: the model the units belong to.
        units: the units to probe; of them, those parameters count that an optimizer holds. All of
            these are thawed: leave out of `Unit.parameters` what is never to be trained.
        loss_fns: at least two; each runs the model (not a wrapper that communicates, such as DDP)
            on a batch of its own, drawn independently, and returns the unscaled scalar loss,
            without logging. They decide on modes, precision, and how a cache is passed by; the
            model's hooks run as always. Random numbers drawn inside are those that training draws
            next, so batches are to be drawn before.
        optimizers: those that would train the units.

    Returns:
        Per unit v with its uncertainty, from m − 1 estimates, for the units that a loss reaches
        through a parameter that an optimizer holds; NaN where a loss or a gradient was.

    Raises:
        ValueError: fewer than two losses, or a loss that isn't a scalar.

    Source:
        See `debiased_decrease`. Huang et al. (GreenTrainer) probe with one batch and a real step.

    Example:
        >>> from lightning_attnbal.core import UnitKind
        >>> model = nn.Linear(2, 1, bias=False).requires_grad_(False)
        >>> unit = Unit("head", 0, UnitKind.HEAD, ("",), ("weight",), 2)
        >>> batches = torch.tensor([[3.0, 1.0]]), torch.tensor([[3.0, -1.0]])
        >>> losses = [lambda b=b: model(b).sum() for b in batches]
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> probe_contributions(model, [unit], losses, [optimizer])["head"]
        Contribution(mean=8.0, std_error=inf, count=1)
    """
    if len(loss_fns) < 2:
        msg = f"Expected `loss_fns` to hold at least 2 losses, but got {len(loss_fns)}."
        raise ValueError(msg)
    owner = {id(p): o for o in optimizers for g in o.param_groups for p in g["params"]}
    parameters = {
        name: [p for p in those if id(p) in owner]
        for name, those in unit_parameters(model, units).items()
    }
    crossed = {name: _Crossed(those, owner) for name, those in parameters.items()}
    with untouched(model), torch.inference_mode(mode=False), torch.enable_grad():
        probed = list({id(p): p for those in parameters.values() for p in those}.values())
        for parameter in probed:
            parameter.requires_grad_(True)
        for loss_fn in loss_fns:
            gradients = _gradients(loss_fn(), probed)
            for unit in crossed.values():
                unit.add(gradients)
    return {name: unit.contribution() for name, unit in crossed.items() if unit.is_reached}


def _gradients(loss: Tensor, parameters: Sequence[nn.Parameter]) -> dict[int, Tensor]:
    """Gradient by the identity of the parameter, for those that the loss depends on."""
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        found = tuple(loss.shape) if isinstance(loss, Tensor) else type(loss).__name__
        msg = f"Expected each of `loss_fns` to return a scalar loss, but got {found}."
        raise ValueError(msg)
    if not loss.requires_grad or not parameters:
        return {}
    gradients = torch.autograd.grad(loss.sum(), parameters, allow_unused=True)
    return {id(p): g for p, g in zip(parameters, gradients, strict=True) if g is not None}


class _Crossed:
    """Crosses each new gradient of a unit with the sum of those before: all pairs, two tensors."""

    def __init__(self, parameters: Sequence[nn.Parameter], owner: dict[int, Optimizer]) -> None:
        self._parameters = parameters
        self._owner = owner
        self._seen: tuple[list[Tensor], list[Tensor]] | None = None
        self._estimates: list[float] = []
        self.is_reached = False

    @torch.no_grad()
    def add(self, gradients: dict[int, Tensor]) -> None:
        self.is_reached |= any(id(p) in gradients for p in self._parameters)
        found = [gradients.get(id(p)) for p in self._parameters]
        pairs = zip(self._parameters, found, strict=True)
        new = [torch.zeros_like(p) if g is None else g for p, g in pairs]
        steps = [self._step(p, g) for p, g in zip(self._parameters, new, strict=True)]
        if self._seen is None:
            self._seen = steps, [wide(g).clone() for g in new]
            return
        old_steps, old = self._seen
        earlier = len(self._estimates) + 1
        self._estimates.append(debiased_decrease(steps, new, old_steps, old) / earlier)
        for before, more in zip((*old_steps, *old), (*steps, *new), strict=True):
            before.add_(more)

    def contribution(self) -> Contribution:
        """Mean over all pairs, and what the estimates differ by."""
        num = len(self._estimates)
        weighed = list(enumerate(self._estimates, 1))  # by the losses that each was crossed with
        total = num * (num + 1) / 2
        mean = sum(n * c for n, c in weighed) / total
        variance = sum(n * (c - mean) ** 2 for n, c in weighed) / total
        error = 2 * math.sqrt(variance / (num - 1)) if num > 1 else math.inf
        return Contribution(mean, error, num)

    def _step(self, parameter: nn.Parameter, gradient: Tensor) -> Tensor:
        """What the optimizer makes of the gradient, in the long run."""
        optimizer = self._owner[id(parameter)]
        gain = momentum_gain(optimizer, parameter)
        return gain * update_direction(optimizer, parameter, gradient)
