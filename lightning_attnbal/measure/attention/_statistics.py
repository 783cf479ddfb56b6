"""The two figures of a head. Shapes: B batch, H heads, N queries, K keys, D width of a head."""

from __future__ import annotations

import torch
from torch import Tensor


def attention_entropy(weights: Tensor, visible: Tensor | None = None) -> Tensor:
    """How widely each query looks: entropy of its weights over the log of the keys it may see.

    −Σ_k w_k ln w_k / ln n, in [0, 1]: 0 if all weight is on one key, 1 if it is spread evenly over
    the n visible ones. NaN where fewer than two keys are visible.

    Args:
        weights: (…, K), each row sums to 1.
        visible: (…, K), which keys the mask allows; None: all.

    Returns:
        (…).

    Source: Zhai et al., "Stabilizing Transformer Training by Preventing Attention Entropy
    Collapse" (ICML 2023), section 3, there without the normalisation.

    Example:
        >>> rows = torch.tensor([[0.25, 0.25, 0.25, 0.25], [0.0, 1.0, 0.0, 0.0]])
        >>> attention_entropy(rows).tolist()
        [1.0, 0.0]
        >>> attention_entropy(torch.tensor([0.5, 0.5, 0.0]), torch.tensor([True, True, False]))
        tensor(1.)
    """
    entropy = torch.special.entr(weights).sum(-1)
    if visible is None:
        visible = torch.ones_like(weights, dtype=torch.bool)
    count = visible.sum(-1)
    return torch.where(count > 1, entropy / count.log(), torch.nan).clamp(0.0, 1.0)


def head_importance(outputs: Tensor, gradients: Tensor) -> Tensor:
    """How much the loss depends on each head: I_h = E|⟨o_h, ∂L/∂o_h⟩|, before normalisation.

    The first-order estimate of what the loss changes by when the head is left out, in the units of
    the loss; the mean is over samples and tokens.

    Args:
        outputs: (B, H, N, D), what the heads put out.
        gradients: (B, H, N, D), the gradient of the loss there.

    Returns:
        (H,), in [0, inf).

    Source: Michel, Levy, Neubig, "Are Sixteen Heads Really Better than One?" (NeurIPS 2019),
    equation 2; their code takes the absolute value per token, and so do we.

    Example:
        >>> outputs, gradients = torch.ones(1, 2, 1, 3), torch.zeros(1, 2, 1, 3)
        >>> gradients[0, 1] = -2.0
        >>> head_importance(outputs, gradients).tolist()
        [0.0, 6.0]
    """
    return (outputs * gradients).sum(-1).abs().mean((0, 2))
