"""Translation: several languages on one shared encoder-decoder."""

from recipes.translation.codec import Codec, train_bpe
from recipes.translation.config import (
    HubConfig,
    MBartConfig,
    MiniLMConfig,
    TranslationDataConfig,
    TranslatorConfig,
)
from recipes.translation.data import TranslationData
from recipes.translation.models import make_hub, make_mbart, make_minilm
from recipes.translation.module import Translator
from recipes.translation.predictor import SentenceTranslator, load_predictor
from recipes.translation.scores import score, signatures
from recipes.translation.search import BeamSearch
from recipes.translation.sources import load_files, load_hub, load_strings, make_pairs
from recipes.translation.splits import content_key, divide
from recipes.translation.warm_start import dice_table, near_translations, warm_start

__all__ = [
    "BeamSearch",
    "Codec",
    "HubConfig",
    "MBartConfig",
    "MiniLMConfig",
    "SentenceTranslator",
    "TranslationData",
    "TranslationDataConfig",
    "Translator",
    "TranslatorConfig",
    "content_key",
    "dice_table",
    "divide",
    "load_files",
    "load_hub",
    "load_predictor",
    "load_strings",
    "make_hub",
    "make_mbart",
    "make_minilm",
    "make_pairs",
    "near_translations",
    "score",
    "signatures",
    "train_bpe",
    "warm_start",
]
