"""The models of the recipe, made for data or read from a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModel, BertConfig, BertModel, OPTConfig, OPTModel

from lightning_attnbal.core import check_choice, check_integer, check_number
from recipes._common import read_card
from recipes.recommendation.config import BERT4RecConfig, SASRecConfig
from recipes.recommendation.data import RecommendationData
from recipes.recommendation.module import Recommender
from recipes.recommendation.towers import CausalTowers, MaskedTowers, Ratings

_KINDS: dict[str, type[CausalTowers]] = {"opt": CausalTowers, "bert": MaskedTowers}


def make_sasrec(config: SASRecConfig, data: RecommendationData) -> Recommender:
    """A causal transformer for the data, from scratch: OPT's blocks, which are SASRec's.

    Blocks normalise before attention and before a feed-forward layer with ReLU; positions are
    learned.

    Args:
        config: sizes and loss.
        data: after `setup`.

    Raises:
        ValueError: a number is outside its range.

    Source: Kang and McAuley, "Self-Attentive Sequential Recommendation", 2018; with a softmax over
    items: Klenitskiy and Vasilev, "Turning Dross Into Gold Loss", 2023.
    """
    _check(config)
    encoder = OPTModel(
        OPTConfig(
            vocab_size=len(data.interactions.titles),
            hidden_size=config.width,
            ffn_dim=4 * config.width,
            num_hidden_layers=config.num_layers,
            num_attention_heads=config.num_heads,
            max_position_embeddings=data.config.max_length + 1,
            dropout=config.dropout,
            attention_dropout=config.dropout,
            pad_token_id=0,
        )
    )
    towers = CausalTowers(encoder, *_facts(data), config.dropout)
    return Recommender(config, towers, _card(data))


def make_bert4rec(config: BERT4RecConfig, data: RecommendationData) -> Recommender:
    """A bidirectional transformer for the data, from scratch: BERT's blocks.

    Args:
        config: sizes, loss and share of masks.
        data: after `setup`.

    Raises:
        ValueError: a number is outside its range.

    Source: Sun et al., "BERT4Rec", 2019.
    """
    _check(config)
    encoder = BertModel(
        BertConfig(
            vocab_size=len(data.interactions.titles),
            hidden_size=config.width,
            intermediate_size=4 * config.width,
            num_hidden_layers=config.num_layers,
            num_attention_heads=config.num_heads,
            max_position_embeddings=data.config.max_length + 1,
            hidden_dropout_prob=config.dropout,
            attention_probs_dropout_prob=config.dropout,
            type_vocab_size=1,
        ),
        add_pooling_layer=False,
    )
    towers = MaskedTowers(encoder, *_facts(data), config.dropout, config.mask_share)
    return Recommender(config, towers, _card(data))


def _check(config: SASRecConfig) -> None:
    for name in ("num_layers", "num_heads", "num_negatives"):
        check_integer(f"model.{name}", getattr(config, name), low=1)
    check_number("model.dropout", config.dropout, low=0, high=1, high_open=True)
    if config.width < 1 or config.width % config.num_heads:
        msg = f"Expected `model.width` to be a multiple of {config.num_heads} (`model.num_heads`), "
        raise ValueError(f"{msg}but got {config.width}.")


def _facts(
    data: RecommendationData,
) -> tuple[Ratings, tuple[str, ...], tuple[torch.Tensor, torch.Tensor]]:
    """How ratings are read, by those of the training rows; the tasks; features."""
    of = data.interactions
    found = np.concatenate([of.ratings[w.user][w.start : w.stop] for w in data.windows["train"]])
    ratings = Ratings(
        low=float(found.min()),
        high=float(found.max()),
        mean=float(found.mean()),
        deviation=float(found.std()) or 1.0,
        like_from=data.config.like_from,
    )
    mean_user = torch.from_numpy(of.user_features.mean(0))
    return ratings, data.tasks, (torch.from_numpy(of.item_features), mean_user)


def _card(data: RecommendationData) -> dict[str, Any]:
    """What the predictor must know: items, and where the histories are (they are not copied)."""
    of, config = data.interactions, data.config
    return {
        "item_ids": of.item_ids,
        "titles": of.titles,
        "max_length": config.max_length,
        "data": {"source": str(config.source), "name": config.name, "path": config.path},
    }


def load_towers(folder: Path) -> CausalTowers:
    """What `Recommender.save_pretrained` wrote, in evaluation mode.

    Raises:
        FileNotFoundError: the folder holds no model of a recipe.
        ValueError: its encoder is of another kind.
        RuntimeError: the weights do not fit together.
    """
    card, rest = read_card(folder), load_file(folder / "towers.safetensors")
    path = str(folder / "encoder")
    kind = AutoConfig.from_pretrained(path, local_files_only=True).model_type
    kind = check_choice("encoder", kind, tuple(_KINDS))
    options = {"add_pooling_layer": False} if kind == "bert" else {}
    encoder = AutoModel.from_pretrained(
        path, local_files_only=True, use_safetensors=True, **options
    )
    features = (rest["item_features"], rest["mean_user"])
    towers = _KINDS[kind](encoder, Ratings(**card["ratings"]), tuple(card["tasks"]), features)
    own = {k: v for k, v in towers.state_dict().items() if k.startswith("encoder.")}
    towers.load_state_dict(rest | own)
    return towers.eval()
