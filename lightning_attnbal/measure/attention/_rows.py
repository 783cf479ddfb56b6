"""Attention weights of a few queries. Shapes: B batch, H heads, N queries, K keys, D width."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_attnbal.measure.attention._statistics import attention_entropy

_HIDDEN = -50.0  # a bias below this hides a key: its weight is e^-50 of an unbiased one's
_SCORE_HIDDEN = -5e3  # the same for scores, which a head may make large by itself


@dataclass(frozen=True, slots=True)
class Sample:
    """How much of a batch is looked at.

    Args:
        samples: the first so many.
        rows: so many queries of each, evenly spaced.
    """

    samples: int
    rows: int

    def of(self, num_queries: int, device: torch.device) -> Tensor:
        """Which queries."""
        few = min(self.rows, num_queries)
        return torch.linspace(0, num_queries - 1, few, device=device).round().long()


def entropy_of_scores(scores: Tensor, weights: Tensor, sample: Sample) -> Tensor:
    """(H,) mean entropy, from a softmax's own input and output, both (B, H, N, K)."""
    rows = sample.of(scores.shape[2], scores.device)
    visible = scores[: sample.samples, :, rows] > _SCORE_HIDDEN
    seen = weights[: sample.samples, :, rows].float()
    return _mean_entropy(seen, visible, rows, scores.shape[2])


def entropy_of_heads(
    query: Tensor,
    key: Tensor,
    mask: Tensor | None,
    sample: Sample,
    *,
    is_causal: bool = False,
    scale: float | None = None,
) -> Tensor:
    """(H,) mean entropy, from (B, H, N, D) queries and (B, H or fewer, K, D) keys.

    Args:
        query: as attention gets it, positions and normalisation included.
        key: likewise; with fewer heads, each serves as many query heads in a row.
        mask: broadcasts to (B, H, N, K): True where a key may be seen, or a bias that is added.
        sample: which queries.
        is_causal: whether query i sees only keys 0 … i.
        scale: of the scores; None for 1/√D.
    """
    num_queries, num_keys = query.shape[2], key.shape[2]
    rows = sample.of(num_queries, query.device)
    few = query[: sample.samples, :, rows].float()
    keys = key[: sample.samples].float()
    keys = keys.repeat_interleave(query.shape[1] // key.shape[1], dim=1)
    scale = 1 / math.sqrt(query.shape[3]) if scale is None else scale
    scores = few @ keys.mT * scale
    visible = torch.ones_like(scores, dtype=torch.bool)
    if is_causal:
        visible &= torch.arange(num_keys, device=rows.device) <= rows[:, None]
    if mask is not None:
        full = (query.shape[0], query.shape[1], num_queries, num_keys)
        bias = mask.expand(full)[: sample.samples, :, rows]
        if bias.dtype == torch.bool:
            visible &= bias
        else:
            visible &= bias > _HIDDEN
            scores = scores + bias.float()
    weights = scores.masked_fill(~visible, -torch.inf).softmax(-1)
    return _mean_entropy(weights.nan_to_num(0.0), visible, rows, num_queries)


def _mean_entropy(weights: Tensor, visible: Tensor, rows: Tensor, num_queries: int) -> Tensor:
    """(H,) mean over samples and queries; NaN if none sees two keys.

    In self-attention a query that may not see itself is padding, and left out.
    """
    entropy = attention_entropy(weights, visible)
    if weights.shape[-1] == num_queries:
        itself = visible.gather(-1, rows.expand(visible.shape[:-1])[..., None])[..., 0]
        entropy = entropy.masked_fill(~itself, torch.nan)
    return entropy.nanmean((0, 2))
