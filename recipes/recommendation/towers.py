"""Transformers over a user's history, with a tower for users and one for items."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from transformers import PreTrainedModel

from lightning_attnbal.core import check_number

Batch = Mapping[str, Tensor]

_DEVIATION = 0.02  # of embeddings at first: what transformers takes
_STEPS = 10  # levels of a rating that the input tells apart: half stars from 0.5 to 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratings:
    """How ratings are read and written.

    Args:
        low: lowest rating.
        high: highest rating, in [low, inf).
        mean: of the training rows.
        deviation: standard deviation in the training rows, in (0, inf).
        like_from: ratings from here on are likes.

    Example:
        >>> scale = Ratings(low=1.0, high=5.0, mean=3.0, deviation=2.0, like_from=4.0)
        >>> stars = torch.tensor([1.0, 4.0, 5.0])
        >>> scale.levels(stars).tolist(), scale.standardise(stars).tolist()
        ([1, 8, 10], [-1.0, 0.5, 1.0])
    """

    low: float
    high: float
    mean: float
    deviation: float
    like_from: float

    def levels(self, ratings: Tensor) -> Tensor:
        """Level of each rating, in [1, 10]."""
        share = (ratings - self.low) / max(self.high - self.low, 1e-6)
        return 1 + (share.clamp(0, 1) * (_STEPS - 1)).round().long()

    def are_likes(self, ratings: Tensor) -> Tensor:
        """Which ratings are likes."""
        return ratings >= self.like_from

    def standardise(self, ratings: Tensor) -> Tensor:
        """(rating - mean) / deviation."""
        return (ratings - self.mean) / self.deviation

    def restore(self, standardised: Tensor) -> Tensor:
        """The ratings again, within [low, high]."""
        return (self.mean + self.deviation * standardised).clamp(self.low, self.high)


class CausalTowers(nn.Module):
    """Next item, rating and like from one causal transformer over the history.

    An item's vector is v = E[item] + W f with its features f; it is the item tower, and what stands
    for the item in the input, plus an embedding of the rating it got. The first input is the
    user's features. The state s after the last known interaction answers:

    - `next`: score u · v, with the user tower u = A s;
    - `rating`, `like`: MLP([s, v, s ∘ v]), one each.

    Args:
        encoder: blocks and the table E.
        ratings: how ratings are read.
        tasks: names of the tasks.
        features: of items (I + 1, F), and the mean of users' (G,), for those of whom none is known.
        dropout: of the interactions' vectors, in [0, 1).

    Source: Kang and McAuley, "Self-Attentive Sequential Recommendation", 2018; features, ratings
    and the user token are added.
    """

    item_features: Tensor
    mean_user: Tensor

    def __init__(
        self,
        encoder: PreTrainedModel,
        ratings: Ratings,
        tasks: tuple[str, ...],
        features: tuple[Tensor, Tensor],
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        width = encoder.config.hidden_size
        self.ratings = ratings
        self.register_buffer("item_features", features[0])
        self.register_buffer("mean_user", features[1])
        self.item_embeddings = nn.Linear(features[0].shape[1], width, bias=False)
        self.user_embeddings = nn.Linear(len(features[1]), width, bias=False)
        self.rating_embeddings = nn.Embedding(_STEPS + 1, width, padding_idx=0)
        self.dropout = nn.Dropout(dropout)
        self.encoder = encoder
        self.heads = nn.ModuleDict({task: _head(task, width) for task in tasks})
        embeddings = (self.item_embeddings, self.user_embeddings, self.rating_embeddings)
        for part in embeddings:  # none may drown the items' own, which the encoder draws
            nn.init.normal_(part.weight, std=_DEVIATION)

    @property
    def num_items(self) -> int:
        """Items I; they are numbered from 1."""
        return len(self.item_features) - 1

    def item_vectors(self, items: Tensor) -> Tensor:
        """Vectors (..., D) of items (...)."""
        vectors: Tensor = self.encoder.get_input_embeddings()(items)
        about: Tensor = self.item_embeddings(self.item_features[items])
        return vectors + about

    def all_vectors(self) -> Tensor:
        """Vectors (I + 1, D) of all items; that of item 0 is of no use."""
        return self.item_vectors(torch.arange(self.num_items + 1, device=self.item_features.device))

    def inputs(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Vectors of the user (B, 1, D) and of the interactions (B, N, D)."""
        items = batch["items"]
        rated = self.rating_embeddings(self.ratings.levels(batch["ratings"]) * (items > 0))
        user = self.user_embeddings(batch["user_features"])
        return user[:, None], self.dropout(self.item_vectors(items) + rated)

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """State (B, N, D) before each interaction, and which are asked about (B, N)."""
        user, interactions = self.inputs(batch)
        inputs = torch.cat([user, interactions[:, :-1]], 1)
        return self.encoder(inputs_embeds=inputs).last_hidden_state, batch["target"]

    def user_vectors(self, states: Tensor) -> Tensor:
        """User tower: vectors (..., D) for states (..., D)."""
        vectors: Tensor = self.heads["next"](states)
        return vectors

    def answers(self, task: str, states: Tensor, vectors: Tensor) -> Tensor:
        """Standardised rating, or logit of a like (...), of items (..., D), for states (..., D)."""
        found: Tensor = self.heads[task](torch.cat([states, vectors, states * vectors], -1))
        return found.squeeze(-1)


class MaskedTowers(CausalTowers):
    """The same with a transformer that sees both sides of an interaction, which is masked.

    In training a share of the interactions is masked and asked about; later only the last one.

    Args:
        encoder: blocks and the table E.
        ratings: how ratings are read.
        tasks: names of the tasks.
        features: as for `CausalTowers`.
        dropout: of the interactions' vectors, in [0, 1).
        mask_share: of a row's interactions that are masked in training, in (0, 1]; at least one is.

    Raises:
        ValueError: the share is outside its range.

    Source: Sun et al., "BERT4Rec: Sequential Recommendation with Bidirectional Encoder
    Representations from Transformer", 2019.
    """

    def __init__(
        self,
        encoder: PreTrainedModel,
        ratings: Ratings,
        tasks: tuple[str, ...],
        features: tuple[Tensor, Tensor],
        dropout: float = 0.0,
        mask_share: float = 0.3,
    ) -> None:
        super().__init__(encoder, ratings, tasks, features, dropout)
        self.mask_share = check_number("mask_share", mask_share, low=0, high=1, low_open=True)
        self.mask_embedding = nn.Parameter(torch.zeros(encoder.config.hidden_size))

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """State (B, N, D) of each interaction, and which are masked and asked about (B, N)."""
        user, interactions = self.inputs(batch)
        is_there, target = batch["items"] > 0, batch["target"]
        if self.training:
            drawn = torch.rand(target.shape, device=target.device).masked_fill(~is_there, 2)
            target = (drawn < self.mask_share) | (drawn == drawn.amin(1, keepdim=True))
        hidden = torch.where(target[..., None], self.mask_embedding, interactions)
        states: Tensor = self.encoder(
            inputs_embeds=torch.cat([user, hidden], 1),
            attention_mask=pad(is_there, (1, 0), value=True).long(),
        ).last_hidden_state
        return states[:, 1:], target


def _head(task: str, width: int) -> nn.Module:
    if task == "next":
        return nn.Linear(width, width)
    return nn.Sequential(nn.Linear(3 * width, width), nn.ReLU(), nn.Linear(width, 1))
