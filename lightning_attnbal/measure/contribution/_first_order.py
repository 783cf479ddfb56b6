"""First-order loss decrease: of the step that was taken, and of an update on another batch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from lightning_attnbal.measure.contribution._tensors import check_same_shapes, dot


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


def cross_decrease(update: Sequence[Tensor], gradient: Sequence[Tensor]) -> float:
    """First-order loss decrease that an update from one batch brings on another.

    v = ⟨u, g⟩ = Σ_k u_k g_k, with u the update per unit of learning rate (w ← w − lr · u) and g the
    gradient of the other batch's loss. In loss units per unit of learning rate, in (−inf, inf).
    Unbiased for ⟨u, ∇L⟩, L the expected loss, if u does not depend on the batch of g.

    Args:
        update: u, one tensor per parameter, any shapes.
        gradient: g, the same shapes.

    Raises:
        ValueError: the two differ in number or shape of their tensors.

    Source:
        The first-order term of Taylor's theorem; independent batches as in cross-validation.

    Example:
        >>> cross_decrease([torch.tensor([1.0, -1.0])], [torch.tensor([0.5, 0.25])])
        0.25
    """
    check_same_shapes("update", update, "gradient", gradient)
    return dot(update, gradient)


def debiased_decrease(
    u_a: Sequence[Tensor], g_a: Sequence[Tensor], u_b: Sequence[Tensor], g_b: Sequence[Tensor]
) -> float:
    """First-order loss decrease from two independent batches A and B, each the other's judge.

    v = ½ (⟨u(g_A), g_B⟩ + ⟨u(g_B), g_A⟩), with u(g) the optimizer's direction for a gradient g (see
    `update_direction`). In loss units per unit of learning rate, in (−inf, inf). Unbiased for
    ⟨E u(g), ∇L⟩: the noise of a batch never meets itself, as it does in ‖g‖² or in gradient ·
    update. So it falls to 0 at an optimum, and single estimates below 0 are to be kept.

    Args:
        u_a: direction of batch A, one tensor per parameter, any shapes.
        g_a: gradient of batch A, the same shapes.
        u_b: direction of batch B, the same shapes.
        g_b: gradient of batch B, the same shapes.

    Raises:
        ValueError: the lists differ in number or shape of their tensors.

    Source:
        Gradient · update of Huang et al. (see `gradient_update`) with the two factors taken from
        different batches; the average of both ways round is ours.

    Example:
        >>> a, b = [torch.tensor([3.0, 1.0])], [torch.tensor([3.0, -1.0])]  # signal 3, noise ±1
        >>> debiased_decrease(a, a, b, b)  # SGD, u(g) = g; the squared norm of either is 10
        8.0
    """
    return (cross_decrease(u_a, g_b) + cross_decrease(u_b, g_a)) / 2
