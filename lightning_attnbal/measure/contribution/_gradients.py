"""What a gradient alone says of a unit: for comparison, none of these is a loss decrease."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from torch import Tensor

from lightning_attnbal.core import check_integer
from lightning_attnbal.measure.contribution._tensors import total, wide

NormOrder = Literal[1, 2]
"""Which norm: the sum of absolute values, or the root of the sum of squares."""


def gradient_norm(gradients: Sequence[Tensor], *, order: NormOrder = 2) -> float:
    """Norm of a unit's gradient over all its parameters.

    ‖g‖₂ = √(Σ g²), or ‖g‖₁ = Σ |g|. In loss per weight, in [0, inf). Biased upwards as a measure of
    the slope: E‖g‖₂² = ‖∇L‖² + the variance of the batch gradient, so it stays above 0 at an
    optimum and grows where gradients get noisy.

    Args:
        gradients: one tensor per parameter, any shapes.
        order: 2, as clipping uses it, or 1.

    Raises:
        ValueError: `order` is neither 1 nor 2.

    Source:
        The usual baseline; ‖g‖₁ is also Adam's first gradient · update.

    Example:
        >>> import torch
        >>> gradients = [torch.tensor([3.0]), torch.tensor([-4.0])]
        >>> gradient_norm(gradients), gradient_norm(gradients, order=1)
        (5.0, 7.0)
    """
    if check_integer("order", order, low=1, high=2) == 1:
        return total(wide(g).abs().sum() for g in gradients)
    return math.sqrt(fisher_trace(gradients))


def fisher_trace(gradients: Sequence[Tensor]) -> float:
    """Trace of the empirical Fisher information of a unit, from one batch gradient.

    F = Σ g², over all parameters. In squared loss per squared weight, in [0, inf). g is the mean
    over the batch, so this isn't the mean over samples of their own squared gradients: for N
    samples with loss gradients g_n, E Σ g² = ‖∇L‖² + tr Cov(g_n) / N, against ‖∇L‖² + tr Cov(g_n)
    per sample. Values compare between units and steps of one batch size only. Biased upwards as a
    measure of what training is worth.

    Args:
        gradients: one tensor per parameter, any shapes.

    Source:
        Kirkpatrick et al., "Overcoming catastrophic forgetting in neural networks", PNAS 2017
        (diagonal Fisher as importance); Kunstner, Balles, Hennig, "Limitations of the empirical
        Fisher approximation", NeurIPS 2019. We use the observed labels and whole batches.

    Example:
        >>> import torch
        >>> fisher_trace([torch.tensor([3.0]), torch.tensor([-4.0])])
        25.0
    """
    return total(wide(g).square().sum() for g in gradients)


def relative_gradient_change(previous: float, current: float) -> float:
    """How much a unit's accumulated gradient changed from one interval of steps to the next.

    η = |‖Δ_{T−1}‖ − ‖Δ_T‖| / ‖Δ_{T−1}‖, with Δ_T the sum of the gradients over interval T. No unit,
    in [0, inf); 0 if both norms are 0, inf if only the earlier one is. AutoFreeze freezes the
    lowest units whose η is small: a stable gradient, not a small one.

    Args:
        previous: ‖Δ_{T−1}‖, in [0, inf).
        current: ‖Δ_T‖, in [0, inf).

    Raises:
        ValueError: a norm is negative.

    Source:
        Liu, Agarwal, Venkataraman, "AutoFreeze: Automatically Freezing Model Blocks to Accelerate
        Fine-tuning", arXiv:2102.01386, gradient norm test; the authors' code takes the L1 norm.

    Example:
        >>> relative_gradient_change(4.0, 3.0)
        0.25
    """
    if previous < 0 or current < 0:
        msg = f"Expected norms to be in [0, inf), but got {previous} and {current}."
        raise ValueError(msg)
    change = abs(previous - current)
    if previous == 0:
        return math.inf if change else 0.0
    return change / previous
