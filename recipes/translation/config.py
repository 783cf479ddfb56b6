"""The schema of the translation recipe."""

from __future__ import annotations

from dataclasses import dataclass, field

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING

from recipes._common.config import DataConfig, ModelConfig

TARGETS: tuple[str, ...] = (
    "recipes.translation.TranslationData",
    "recipes.translation.make_mbart",
    "recipes.translation.make_minilm",
    "recipes.translation.make_hub",
)
"""What `_target_` may name here."""


@dataclass
class TranslationDataConfig(DataConfig):
    """Schema of `data`; tasks are pairs of languages such as "en-de".

    Args:
        max_tokens: longer pairs are not trained on, and longer test sentences are cut, in [4, inf).
        bucket: lengths are padded to a multiple of it, so that few shapes occur, in [1, inf).
    """

    _target_: str = "recipes.translation.TranslationData"
    max_tokens: int = 64
    bucket: int = 8


@dataclass
class TranslatorConfig(ModelConfig):
    """What all translation models have.

    Args:
        label_smoothing: share of the target probability given to all words alike, in [0, 1).
        num_beams: of the beam search in test and use, in [1, inf).
    """

    label_smoothing: float = 0.1
    num_beams: int = 4


@dataclass
class MBartConfig(TranslatorConfig):
    """Schema of `translation_mbart`: an encoder-decoder from scratch.

    Args:
        vocab_size: of the joint vocabulary, in [300, inf).
        width: a multiple of `heads`.
        encoder_layers: in [1, inf).
        decoder_layers: in [1, inf).
        heads: in [1, inf).
        ffn: inner width of the feed-forward layers, in [1, inf).
        dropout: in [0, 1).
        warm_start: whether it starts near a word table, counted from the training pairs.
    """

    _target_: str = "recipes.translation.make_mbart"
    vocab_size: int = MISSING
    width: int = MISSING
    encoder_layers: int = MISSING
    decoder_layers: int = MISSING
    heads: int = MISSING
    ffn: int = MISSING
    dropout: float = MISSING
    warm_start: bool = True


@dataclass
class MiniLMConfig(TranslatorConfig):
    """Schema of `translation_minilm`: a pretrained encoder and a decoder from scratch.

    Args:
        encoder: folder or name of a BERT-like encoder with its tokenizer; None: the packaged one.
        vocab_size: of the target languages' vocabulary, in [300, inf).
        width: of the decoder, a multiple of `heads`.
        decoder_layers: in [1, inf).
        heads: of the decoder, in [1, inf).
        ffn: inner width of the decoder's feed-forward layers, in [1, inf).
        dropout: of the decoder, in [0, 1).
    """

    _target_: str = "recipes.translation.make_minilm"
    encoder: str | None = None
    vocab_size: int = MISSING
    width: int = MISSING
    decoder_layers: int = MISSING
    heads: int = MISSING
    ffn: int = MISSING
    dropout: float = MISSING


@dataclass
class HubConfig(TranslatorConfig):
    """Schema of `translation_hub`: a pretrained Marian, T5, mBART or NLLB model.

    Args:
        name: folder, or name on the model hub.
        prefixes: target language → what is put before the source, as T5 wants it.
        codes: language → the tokenizer's own name of it, as NLLB and mBART want it.
    """

    _target_: str = "recipes.translation.make_hub"
    name: str = MISSING
    prefixes: dict[str, str] = field(default_factory=dict)
    codes: dict[str, str] = field(default_factory=dict)


def store(configs: ConfigStore) -> None:
    """Register the schemas."""
    configs.store(name="translation_data", node=TranslationDataConfig)
    for name, node in (("mbart", MBartConfig), ("minilm", MiniLMConfig), ("hub", HubConfig)):
        configs.store(group="model", name=f"translation_{name}_schema", node=node)
