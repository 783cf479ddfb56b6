"""Where an optimizer would step for a gradient, read off its settings and state."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor
from torch.optim import SGD, Adam, AdamW, Optimizer

from lightning_attnbal.measure.contribution._tensors import wide

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
    g = -wide(gradient) if group.get("maximize") else wide(gradient)
    if geometry(optimizer) != "adam":
        return g
    state = optimizer.state.get(parameter)
    root = _second_moment_root(state, group, g if as_step else None, rows)
    eps: float = group["eps"]
    return torch.div(g, (g.abs() if root is None else root).add_(eps))


def _part(whole: Tensor, rows: slice | None) -> Tensor:
    return whole if rows is None else whole[rows]


def _second_moment_root(
    state: dict[str, Any] | None,
    group: dict[str, Any],
    gradient: Tensor | None,
    rows: slice | None,
) -> Tensor | None:
    """√v̂ of Adam, with `gradient` taken in if there is one; None before the first step."""
    steps = float(state.get("step", 0)) if state else 0.0
    if state is None or steps < 1:
        return None
    decay = float(group["betas"][1])
    kept = "max_exp_avg_sq" if group["amsgrad"] else "exp_avg_sq"
    largest: Tensor = wide(_part(state[kept], rows))
    if gradient is not None:
        steps += 1
        moment = wide(_part(state["exp_avg_sq"], rows)).mul(decay)
        moment.addcmul_(gradient, gradient, value=1 - decay)
        largest = torch.maximum(largest, moment) if group["amsgrad"] else moment
    return torch.div(largest, 1 - decay**steps).sqrt_()


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
    group = group_of(optimizer, parameter)
    momentum = float(group["momentum"]) if geometry(optimizer) == "sgd" else 0.0
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
