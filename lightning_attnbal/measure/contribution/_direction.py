"""Where an optimizer would step for a gradient, read off its settings and state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.optim import SGD, Adam, AdamW, Optimizer

from lightning_attnbal.measure.contribution._tensors import end_to_end, wide

Geometry = Literal["adam", "sgd", "gradient"]
"""How `update_direction` treats an optimizer; "gradient" is the fallback for unknown ones."""


def geometry(optimizer: Optimizer) -> Geometry:
    """Which directions `update_direction` gives for this optimizer.

    "adam" for Adam and AdamW, "sgd" for SGD, each with their subclasses; "gradient" for every other
    class: its plain gradient stands in for a direction that we don't know.

    Example:
        >>> weights = [torch.ones(2, requires_grad=True)]
        >>> geometry(torch.optim.AdamW(weights)), geometry(torch.optim.Adagrad(weights))
        ('adam', 'gradient')
    """
    if isinstance(optimizer, Adam | AdamW):
        return "adam"
    return "sgd" if isinstance(optimizer, SGD) else "gradient"


@torch.no_grad()
def update_direction(
    optimizer: Optimizer,
    parameter: Tensor,
    gradient: Tensor,
    *,
    as_step: bool = False,
    rows: slice | None = None,
) -> Tensor:
    """The direction the optimizer steps along for `gradient`: w ← w − lr · u. Changes nothing.

    | geometry | u | unit |
    |---|---|---|
    | adam | g / (√v̂ + eps) | 1, about in [−1, 1] |
    | sgd | g | loss per weight |
    | gradient (any other class) | g | loss per weight |

    g is the gradient, negated under `maximize`. v̂ is Adam's second moment as it stands, corrected
    for its bias; with amsgrad the largest so far. It takes g in, as a step would, only with
    `as_step`: then u has a bound, about √t after t steps, also where all gradients before were 0 (a
    token that appears for the first time) and u is g / eps otherwise. A parameter without state
    (never stepped, or moments dropped) has v̂ = g², the value after a first step: u = g / (|g| +
    eps). Adam's first moment and SGD's momentum are left out: they mix in older gradients, of other
    batches. In the long run Adam's has gain 1 and SGD's the gain of `momentum_gain`. Weight decay
    is left out: it isn't a direction of the loss.

    Args:
        optimizer: holds the parameter; fused, foreach and capturable variants are all read.
        parameter: any shape.
        gradient: the same shape, or that of the rows; a sparse one is made dense.
        as_step: whether v̂ is that of the step itself: u is then what Adam with beta_1 = 0 takes.
        rows: of the first dimension, to have only a part of u; None: all.

    Returns:
        u, shaped like the parameter (those rows of it), in float32 at least.

    Raises:
        ValueError: the optimizer does not hold the parameter, or the shapes differ.

    Source:
        Kingma, Ba, "Adam: A Method for Stochastic Optimization", ICLR 2015, algorithm 1; Reddi,
        Kale, Kumar, "On the Convergence of Adam and Beyond", ICLR 2018 (amsgrad), v̂ as in PyTorch.

    Example:
        >>> weight = torch.ones(2, requires_grad=True)
        >>> gradient = torch.tensor([0.5, -2.0])
        >>> update_direction(torch.optim.Adam([weight]), weight, gradient)
        tensor([ 1., -1.])
        >>> update_direction(torch.optim.SGD([weight], lr=0.1), weight, gradient)
        tensor([ 0.5000, -2.0000])
    """
    group = group_of(optimizer, parameter)
    shape = (parameter if rows is None else parameter[rows]).shape
    if gradient.shape != shape:
        msg = (
            f"Expected `gradient` to have the parameter's shape {tuple(shape)}, "
            f"but got {tuple(gradient.shape)}."
        )
        raise ValueError(msg)
    rule = step_rule(optimizer, parameter, group)
    return rule.direction(wide(gradient), rule.moments(optimizer, parameter, rows), as_step=as_step)


@dataclass(frozen=True, slots=True)
class JointDirection:
    """The directions of several parameters, laid end to end.

    Args:
        names: of the parameters.
        numbers: (N,) of all of them, one after the other.

    Example:
        >>> JointDirection(("weight", "bias"), torch.zeros(6)).names
        ('weight', 'bias')
    """

    names: tuple[str, ...]
    numbers: Tensor


@torch.no_grad()
def joint_directions(
    optimizers: Sequence[Optimizer],
    parameters: Mapping[str, Tensor],
    gradients: Mapping[str, Tensor],
    *,
    as_step: bool = False,
    rows: Mapping[str, slice | None] | None = None,
) -> list[JointDirection]:
    """`update_direction` times `momentum_gain` of many parameters, in few operations.

    Parameters that their optimizers treat alike, and of which the same rows are asked for, are laid
    end to end: where parameters are small, most of the time goes into calls.

    Args:
        optimizers: those that may hold the parameters; what none of them holds is left out.
        parameters: by name, of any shapes.
        gradients: by name, for some of the parameters; those of the rows where there are any.
        as_step: as of `update_direction`.
        rows: name → rows of the first dimension; None, or no entry: all.

    Returns:
        Numbers of their own, never those of a gradient; each name once.

    Example:
        >>> weights = {name: torch.ones(2, requires_grad=True) for name in ("a", "b")}
        >>> gradients = {"a": torch.tensor([0.5, -2.0]), "b": torch.tensor([3.0, 0.0])}
        >>> (found,) = joint_directions([torch.optim.Adam(weights.values())], weights, gradients)
        >>> found.names, found.numbers
        (('a', 'b'), tensor([ 1., -1.,  1.,  0.]))
    """
    held = {id(p): (o, g) for o in optimizers for g in o.param_groups for p in g["params"]}
    alike: dict[Any, list[str]] = {}
    for name, gradient in gradients.items():
        if id(parameters[name]) in held:
            optimizer, group = held[id(parameters[name])]
            rule = step_rule(optimizer, parameters[name], group)
            gain = gain_in(group, rule.kind)
            which = str(rows.get(name)) if rows else ""
            key = (rule, gain, which, gradient.device, gradient.dtype)
            alike.setdefault(key, []).append(name)
    found = []
    for (rule, gain, *_), names in alike.items():
        of_each = [
            rule.moments(held[id(parameters[n])][0], parameters[n], rows.get(n) if rows else None)
            for n in names
        ]
        moments = tuple(map(end_to_end, zip(*of_each, strict=True)))
        flat = end_to_end([gradients[n] for n in names])
        found.append(
            JointDirection(tuple(names), gain * rule.direction(flat, moments, as_step=as_step))
        )
    return found


@dataclass(frozen=True, slots=True)
class StepRule:
    """What an optimizer makes of the gradient of a parameter, but for its second moments.

    Args:
        kind: of the optimizer.
        is_negated: whether it maximizes.
        steps: taken so far, of Adam; 0 before the first and for others.
        decay: of Adam's second moment.
        eps: of Adam.
        amsgrad: whether Adam keeps the largest second moment.
    """

    kind: Geometry
    is_negated: bool
    steps: float = 0.0
    decay: float = 0.0
    eps: float = 0.0
    amsgrad: bool = False

    def moments(
        self, optimizer: Optimizer, parameter: Tensor, rows: slice | None = None
    ) -> tuple[Tensor, ...]:
        """Adam's second moment and, with amsgrad, its largest; nothing before the first step."""
        if self.steps < 1:
            return ()
        state = optimizer.state[parameter]
        kept = (state[name] for name in ("exp_avg_sq", "max_exp_avg_sq")[: 1 + self.amsgrad])
        return tuple(wide(moment if rows is None else moment[rows]) for moment in kept)

    @torch.no_grad()
    def direction(self, gradient: Tensor, moments: tuple[Tensor, ...], *, as_step: bool) -> Tensor:
        """See `update_direction`; may be the gradient itself."""
        g = -gradient if self.is_negated else gradient
        if self.kind != "adam":
            return g
        if not moments:
            return torch.div(g, g.abs().add_(self.eps))
        largest, steps = moments[-1], self.steps
        if as_step:
            steps += 1
            moment = moments[0].mul(self.decay).addcmul_(g, g, value=1 - self.decay)
            largest = torch.maximum(largest, moment) if self.amsgrad else moment
        root = torch.div(largest, 1 - self.decay**steps).sqrt_()
        return torch.div(g, root.add_(self.eps))


def step_rule(optimizer: Optimizer, parameter: Tensor, group: dict[str, Any]) -> StepRule:
    """The rule for a parameter of this group of the optimizer."""
    kind, is_negated = geometry(optimizer), bool(group.get("maximize"))
    if kind != "adam":
        return StepRule(kind, is_negated)
    steps = float((optimizer.state.get(parameter) or {}).get("step", 0))
    decay, eps = float(group["betas"][1]), float(group["eps"])
    return StepRule(kind, is_negated, max(0.0, steps), decay, eps, bool(group["amsgrad"]))


def momentum_gain(optimizer: Optimizer, parameter: Tensor) -> float:
    """How far all steps together go for one gradient, in multiples of `update_direction`.

    (1 − dampening) / (1 − μ) for SGD with momentum μ: a gradient acts with weight
    (1 − dampening) μ^k on the k-th step after its own, k = 0, 1, …; with nesterov the same sum.
    Otherwise 1. A number, in (0, inf). Multiply by it where an estimate for a unit that doesn't
    train is compared with those of units that do.

    Raises:
        ValueError: the optimizer does not hold the parameter.

    Source:
        Sutskever, Martens, Dahl, Hinton, "On the importance of initialization and momentum in deep
        learning", ICML 2013: effective rate lr / (1 − μ); dampening as in PyTorch.

    Example:
        >>> weight = torch.ones(1, requires_grad=True)
        >>> round(momentum_gain(torch.optim.SGD([weight], lr=0.1, momentum=0.9), weight), 3)
        10.0
    """
    return gain_in(group_of(optimizer, parameter), geometry(optimizer))


def gain_in(group: dict[str, Any], kind: Geometry) -> float:
    """`momentum_gain` of the parameters of a group.

    Example:
        >>> round(gain_in({"momentum": 0.9, "dampening": 0.5}, "sgd"), 3)
        5.0
    """
    momentum = float(group["momentum"]) if kind == "sgd" else 0.0
    if momentum == 0 or momentum >= 1:
        return 1.0
    return (1 - float(group["dampening"])) / (1 - momentum)


def group_of(optimizer: Optimizer, parameter: Tensor) -> dict[str, Any]:
    """The parameter group of `optimizer` that holds `parameter`, found by identity.

    Raises:
        ValueError: none does.

    Example:
        >>> weight = torch.ones(1, requires_grad=True)
        >>> group_of(torch.optim.SGD([weight], lr=0.1), weight)["lr"]
        0.1
    """
    for group in optimizer.param_groups:
        if any(p is parameter for p in group["params"]):
            return group
    msg = (
        f"Expected `optimizer` to hold the parameter of shape {tuple(parameter.shape)}, "
        f"but none of its {len(optimizer.param_groups)} parameter groups does."
    )
    raise ValueError(msg)
