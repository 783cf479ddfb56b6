"""Tiny models of every supported family, each with a ready batch and a loss.

All are built from configurations, offline, without dropout, with the same weights at each call; one
forward and backward takes less than 0.3 s on one core. Libraries are imported when first needed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests import family_models as models
from tests.family_models import PIXELS, TOKENS, VOCAB, WIDTH

BATCH = 2

Batch = dict[str, Any]


@dataclass(frozen=True)
class Family:
    """A tiny model: `build()`, then `loss(model, batch())` is a scalar to call `.backward()` on.

    Args:
        name: key in `FAMILIES`.
        build: makes the model in train mode, with the same weights each time; the global random
            state is left alone.
        batch: makes the input: keyword arguments of `forward`, or {"args": positional arguments}.
        loss: scalar loss of a model on a batch.
    """

    name: str
    build: Callable[[], nn.Module]
    batch: Callable[[], Batch]
    loss: Callable[[nn.Module, Batch], Tensor]


def forward(model: nn.Module, batch: Batch) -> Any:
    """Call the model on a batch of either form."""
    return model(*batch["args"]) if "args" in batch else model(**batch)


def _loss_of_output(model: nn.Module, batch: Batch) -> Tensor:
    """Hugging Face models return their loss when the batch has labels."""
    return forward(model, batch).loss


def _cross_entropy(model: nn.Module, batch: Batch) -> Tensor:
    """Cross entropy of class scores, shape (B, classes), with the fixed targets 0, 1, ..."""
    scores = forward(model, batch)
    return functional.cross_entropy(scores, torch.arange(len(scores)) % scores.shape[-1])


def _mean_square(model: nn.Module, batch: Batch) -> Tensor:
    return forward(model, batch).square().mean()


def _tokens(seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(4, VOCAB, (BATCH, TOKENS), generator=generator)


def _normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _text_class_batch() -> Batch:
    mask = torch.ones(BATCH, TOKENS, dtype=torch.long)
    return {"input_ids": _tokens(), "attention_mask": mask, "labels": torch.arange(BATCH)}


def _causal_batch() -> Batch:
    ids = _tokens()
    return {"input_ids": ids, "labels": ids.clone()}


def _translation_batch() -> Batch:
    return {"input_ids": _tokens(), "labels": _tokens(seed=1)}


def _hf_image_batch() -> Batch:
    return {"pixel_values": _normal(BATCH, 3, PIXELS, PIXELS), "labels": torch.arange(BATCH)}


def _image_batch() -> Batch:
    return {"args": (_normal(BATCH, 3, PIXELS, PIXELS),)}


def _large_image_batch() -> Batch:
    return {"args": (_normal(BATCH, 3, 2 * PIXELS, 2 * PIXELS),)}


def _vector_batch() -> Batch:
    return {"args": (_normal(BATCH, TOKENS),)}


def _sequence_batch() -> Batch:
    return {"args": (_normal(BATCH, TOKENS, WIDTH),)}


def _pair_batch() -> Batch:
    return {"args": (_normal(BATCH, TOKENS, WIDTH), _normal(BATCH, TOKENS, WIDTH, seed=1))}


def _token_batch() -> Batch:
    return {"args": (_tokens(),)}


def _seeded(build: Callable[[], nn.Module]) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build().train()


def _families() -> Iterator[Family]:
    labelled = {
        "bert": ("BertForSequenceClassification", "BertConfig", models.BERT, _text_class_batch),
        "distilbert": (
            "DistilBertForSequenceClassification",
            "DistilBertConfig",
            models.DISTILBERT,
            _text_class_batch,
        ),
        "gpt2": ("GPT2LMHeadModel", "GPT2Config", models.GPT2, _causal_batch),
        "llama": ("LlamaForCausalLM", "LlamaConfig", models.LLAMA, _causal_batch),
        "t5": ("T5ForConditionalGeneration", "T5Config", models.T5, _translation_batch),
        "marian": ("MarianMTModel", "MarianConfig", models.SEQ2SEQ, _translation_batch),
        "bart": ("BartForConditionalGeneration", "BartConfig", models.SEQ2SEQ, _translation_batch),
        "hf_vit": ("ViTForImageClassification", "ViTConfig", models.HF_VIT, _hf_image_batch),
    }
    for name, (model, config, options, batch) in labelled.items():
        build = partial(models.hugging_face, model, config, options)
        yield Family(name, partial(_seeded, build), batch, _loss_of_output)
    lstm = partial(models.RecurrentAttention, nn.LSTM, is_stack=True)
    gru = partial(models.RecurrentAttention, nn.GRU, is_stack=False)
    plain = {
        "timm_vit": (models.timm_vit, _image_batch, _cross_entropy),
        "timm_convnext": (models.timm_convnext, _large_image_batch, _cross_entropy),
        "timm_swin": (models.timm_swin, _image_batch, _cross_entropy),
        "timm_resnet": (models.timm_resnet, _large_image_batch, _cross_entropy),
        "tv_resnet18": (models.tv_resnet18, _large_image_batch, _cross_entropy),
        "tv_vit": (models.tv_vit, _image_batch, _cross_entropy),
        "tv_swin": (models.tv_swin, _image_batch, _cross_entropy),
        "nn_transformer_encoder": (models.transformer_encoder, _sequence_batch, _mean_square),
        "nn_transformer_decoder": (models.transformer_decoder, _pair_batch, _mean_square),
        "nn_transformer": (models.transformer, _pair_batch, _mean_square),
        "lstm_attention": (lstm, _token_batch, _cross_entropy),
        "gru_attention": (gru, _token_batch, _cross_entropy),
        "mlp_sequential": (models.mlp, _vector_batch, _cross_entropy),
        "cnn_sequential": (models.cnn, _image_batch, _cross_entropy),
    }
    for name, (build, batch, loss) in plain.items():
        yield Family(name, partial(_seeded, build), batch, loss)


FAMILIES: dict[str, Family] = {family.name: family for family in _families()}
