"""A trained model that labels sentences."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

from recipes._common.heads import ClassPredictor
from recipes._common.saved import read_card
from recipes.text.module import load_tokenizer
from recipes.text.tasks import HEADS, TextTasks


def load_predictor(folder: Path) -> ClassPredictor:
    """The model that a run of the text recipe left.

    The folder need not be trusted: no code is run from it, weights are read as tensors only, and
    tensors of another shape than the card says are refused.

    Raises:
        FetchError: there is no encoder.
        FileNotFoundError: there is no card.
        RuntimeError: the heads are not those of the card.
    """
    card = read_card(folder)
    tokenizer = load_tokenizer(folder)
    counts = {task: len(names) for task, names in card["tasks"].items()}
    module = TextTasks(folder, counts)
    module.heads.load_state_dict(load_file(folder / HEADS))

    def prepare(texts: Sequence[str]) -> dict[str, Tensor]:
        options = {"truncation": True, "max_length": card["max_tokens"], "padding": True}
        batch = tokenizer(list(texts), **options, return_tensors="pt")
        return {name: batch[name] for name in ("input_ids", "attention_mask")}

    return ClassPredictor(module, card["tasks"], prepare)
