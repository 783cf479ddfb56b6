"""Encoder-decoders: from scratch, on a pretrained encoder, or pretrained as a whole."""

from __future__ import annotations

from typing import Any

from transformers import (
    AutoModel,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    EncoderDecoderModel,
    MBartForCausalLM,
    MBartForConditionalGeneration,
    PreTrainedTokenizerFast,
)
from transformers import MBartConfig as MBartModelConfig

from lightning_attnbal.core import check_integer, check_number
from recipes._fetch import FetchError
from recipes.text import packaged_encoder
from recipes.translation.codec import Codec, add_masks, mask, placeholders, train_bpe
from recipes.translation.config import HubConfig, MBartConfig, MiniLMConfig
from recipes.translation.data import TranslationData
from recipes.translation.module import Translator
from recipes.translation.warm_start import warm_start


def make_mbart(config: MBartConfig, data: TranslationData) -> Translator:
    """An encoder-decoder from scratch; source, target and output share one table of embeddings.

    Sources and targets have one vocabulary, learnt from the training pairs. Its blocks are mBART's,
    which normalise first: at this size they learn about twice as fast as Marian's. Weights start
    with the variance 1 / `width`, as in the original Transformer, and with `warm_start` near a word
    table.

    Source: Liu et al., "Multilingual denoising pre-training for neural machine translation", 2020,
    for the blocks; language tokens as in Johnson et al., "Google's multilingual neural machine
    translation system", 2017, but on the decoder's side, so that one encoding serves all languages.

    Raises:
        ValueError: a number is outside its range.
    """
    tokenizer = _vocabulary(data, config.vocab_size, with_sources=True)
    codec = Codec(source=tokenizer, target=tokenizer, starts=_starts(tokenizer, data))
    model_config = _mbart_config(
        config,
        data,
        vocab_size=len(tokenizer),
        encoder_layers=check_integer("model.encoder_layers", config.encoder_layers, low=1),
        encoder_attention_heads=config.heads,
        encoder_ffn_dim=config.ffn,
        **_ends(tokenizer, codec),
    )
    model = MBartForConditionalGeneration(model_config)
    data.use(codec)
    if config.warm_start:
        warm_start(model, data.token_pairs())
    return Translator(config, model, data)


def make_minilm(config: MiniLMConfig, data: TranslationData) -> Translator:
    """A pretrained BERT-like encoder with its own tokenizer, and an mBART decoder from scratch.

    Source: Rothe et al., "Leveraging pre-trained checkpoints for sequence generation tasks", 2020.

    Raises:
        FetchError: the encoder cannot be had.
        ValueError: a number is outside its range.
    """
    target = _vocabulary(data, config.vocab_size, with_sources=False)
    name = config.encoder or str(packaged_encoder())
    source = _pretrained(AutoTokenizer, name)
    add_masks(source)
    codec = Codec(source=source, target=target, starts=_starts(target, data))
    ends = _ends(target, codec)
    decoder_config = _mbart_config(
        config,
        data,
        vocab_size=len(target),
        is_decoder=True,
        is_encoder_decoder=False,
        add_cross_attention=True,
        **ends,
    )
    encoder = _pretrained(AutoModel, name)
    encoder.resize_token_embeddings(len(source))
    model = EncoderDecoderModel(encoder=encoder, decoder=MBartForCausalLM(decoder_config))
    for key, value in ends.items():
        setattr(model.config, key, value)
        setattr(model.generation_config, key, value)
    data.use(codec)
    return Translator(config, model, data)


def _mbart_config(
    config: MBartConfig | MiniLMConfig, data: TranslationData, **options: Any
) -> MBartModelConfig:
    """The decoder's sizes and what both sides share, after checks."""
    check_integer("model.heads", config.heads, low=1)
    if config.width % config.heads:
        msg = (
            f"Expected `model.width` to be a multiple of `model.heads`={config.heads}, but got "
            f"{config.width}."
        )
        raise ValueError(msg)
    kind: Any = MBartModelConfig  # its signature leaves out what every configuration takes
    made: MBartModelConfig = kind(
        d_model=config.width,
        decoder_layers=check_integer("model.decoder_layers", config.decoder_layers, low=1),
        decoder_attention_heads=config.heads,
        decoder_ffn_dim=config.ffn,
        dropout=check_number("model.dropout", config.dropout, low=0, high=1, high_open=True),
        init_std=config.width**-0.5,
        scale_embedding=True,
        max_position_embeddings=data.max_tokens,
        activation_function="relu",
        attn_implementation="eager",  # for short sentences faster than sdpa, by a third in bf16
        bos_token_id=None,
        forced_eos_token_id=None,
        **options,
    )
    return made


def make_hub(config: HubConfig, data: TranslationData) -> Translator:
    """A pretrained translation model by name or folder: Marian, T5, mBART, NLLB.

    Raises:
        FetchError: the model cannot be had.
    """
    tokenizer = _pretrained(AutoTokenizer, config.name)
    model = _pretrained(AutoModelForSeq2SeqLM, config.name)
    start = model.config.decoder_start_token_id
    codec = Codec(
        source=tokenizer,
        target=tokenizer,
        starts={task.split("-")[1]: start for task in data.tasks},
        prefixes=config.prefixes,
        codes=config.codes,
    )
    data.use(codec)
    return Translator(config, model, data)


def _vocabulary(data: TranslationData, size: int, *, with_sources: bool) -> PreTrainedTokenizerFast:
    """BPE of the training pairs; a source that several tasks share counts once."""
    texts: dict[str, None] = {}
    for task in data.tasks:
        for source, target in data.pairs(task, "train"):
            names = placeholders(source)
            if with_sources:
                texts[mask(source, names)] = None
            texts[mask(target, names)] = None
    size = check_integer("model.vocab_size", size, low=300)
    tokenizer = train_bpe(texts, size, _languages(data))
    tokenizer.model_max_length = data.max_tokens
    return tokenizer


def _languages(data: TranslationData) -> list[str]:
    return list(dict.fromkeys(task.split("-")[1] for task in data.tasks))


def _starts(tokenizer: PreTrainedTokenizerFast, data: TranslationData) -> dict[str, int]:
    ids = tokenizer.get_vocab()
    return {language: ids[f"<2{language}>"] for language in _languages(data)}


def _ends(tokenizer: PreTrainedTokenizerFast, codec: Codec) -> dict[str, int]:
    """What `generate` wants to know; the first task's language unless told another."""
    return {
        "pad_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "decoder_start_token_id": next(iter(codec.starts.values())),
    }


def _pretrained(kind: Any, name: str) -> Any:
    try:
        return kind.from_pretrained(name, trust_remote_code=False)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        msg = (
            f"Could not load {name!r} ({reason}). Give `model.name` a folder that holds the model, "
            "or train one from scratch with `model=translation_mbart`."
        )
        raise FetchError(msg) from error
