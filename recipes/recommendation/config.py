"""What a recommendation run may be told."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING

from recipes._common.config import DataConfig, ModelConfig


class Softmax(StrEnum):
    """Against which items the next one is told apart."""

    full = "full"
    sampled = "sampled"


@dataclass
class RecommendationDataConfig(DataConfig):
    """Interactions of users with items; a row is a window of one user's history.

    Args:
        max_length: interactions per window N, in [2, inf).
        like_from: ratings from here on are likes.
    """

    _target_: str = "recipes.recommendation.RecommendationData"
    max_length: int = 100
    like_from: float = 4.0


@dataclass
class SASRecConfig(ModelConfig):
    """A causal transformer over the history.

    Args:
        width: of the vectors D, in [1, inf), a multiple of `num_heads`.
        num_layers: blocks, in [1, inf).
        num_heads: attention heads per block, in [1, inf).
        dropout: of inputs and residual branches, in [0, 1).
        loss: softmax over all items ("full"), or over the right one and drawn ones ("sampled").
        num_negatives: items drawn per step for `loss=sampled`, in [1, inf).
    """

    _target_: str = "recipes.recommendation.make_sasrec"
    width: int = MISSING
    num_layers: int = MISSING
    num_heads: int = MISSING
    dropout: float = MISSING
    loss: Softmax = Softmax.full
    num_negatives: int = 256


@dataclass
class BERT4RecConfig(SASRecConfig):
    """A transformer that sees both sides of masked interactions.

    Args:
        mask_share: of a window's interactions that are masked in training, in (0, 1].
    """

    _target_: str = "recipes.recommendation.make_bert4rec"
    mask_share: float = MISSING


TARGETS: tuple[str, ...] = (
    "recipes.recommendation.RecommendationData",
    "recipes.recommendation.make_sasrec",
    "recipes.recommendation.make_bert4rec",
)
"""What `_target_` may name."""


def store(configs: ConfigStore) -> None:
    """Tell Hydra the schemas of this recipe."""
    configs.store(name="recommendation_data", node=RecommendationDataConfig)
    configs.store(group="model", name="sasrec_schema", node=SASRecConfig)
    configs.store(group="model", name="bert4rec_schema", node=BERT4RecConfig)
