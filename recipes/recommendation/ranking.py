"""Where the right item ends up among all that could be recommended."""

from __future__ import annotations

import torch
from torch import Tensor

CUTOFF = 10
"""Places that a list of recommendations has."""


def ranks_of(scores: Tensor, target: Tensor, seen: Tensor) -> Tensor:
    """Place of the right item among all items not seen before, from 1; (B,).

    Equal scores share their places: a constant score has the middle rank, not the best.

    Args:
        scores: (B, I + 1), larger being better; item 0 is no item.
        target: (B,), numbers of the right items, in [1, I].
        seen: (B, I + 1), items that cannot be recommended; what it says of `target` is ignored.

    Example:
        >>> scores = torch.tensor([[9.0, 0.5, 0.7, 0.6, 0.5]])
        >>> ranks_of(scores, torch.tensor([1]), torch.tensor([[False, False, True, False, False]]))
        tensor([2.5000])
    """
    own = scores.gather(1, target[:, None])
    others = ~seen
    others[:, 0] = False
    others = others.scatter(1, target[:, None], False)
    higher = ((scores > own) & others).sum(1)
    equal = ((scores == own) & others).sum(1)
    return 1 + higher + equal / 2


def ranking_scores(ranks: Tensor) -> dict[str, Tensor]:
    """NDCG@10, Recall@10 and reciprocal rank of each row, (B,) each, in [0, 1].

    With one right item of rank r: NDCG@10 = 1 / log2(1 + r) and Recall@10 = 1 if r ≤ 10, else 0;
    the reciprocal rank is 1 / r. Their means are those of `torchmetrics.retrieval`.

    Example:
        >>> {name: v.tolist() for name, v in ranking_scores(torch.tensor([1.0, 20.0])).items()}
        {'ndcg': [1.0, 0.0], 'recall': [1.0, 0.0], 'mrr': [1.0, 0.05...]}
    """
    is_in = (ranks <= CUTOFF).to(ranks.dtype)
    return {"ndcg": is_in / torch.log2(1 + ranks), "recall": is_in, "mrr": 1 / ranks}
