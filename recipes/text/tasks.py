"""Several questions about texts on one encoder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from recipes._common.config import ModelConfig
from recipes._common.heads import HeadsModule
from recipes._common.saved import write_card
from recipes.text.config import TextEncoderConfig
from recipes.text.module import load_encoder
from recipes.text.tasks_data import TextData

HEADS = "heads.safetensors"
"""File of the heads, beside the encoder's."""


class TextTasks(HeadsModule):
    """A pretrained encoder with mean pooling and one linear head per task.

    Args:
        encoder_path: folder or name that `AutoModel.from_pretrained` accepts; None: MiniLM.
        class_counts: task → number of classes.
        lr: peak learning rate, in (0, inf).
        weight_decay: decoupled weight decay, in [0, inf).
        data: what it is trained on, so that `save_pretrained` can say so.

    Raises:
        FetchError: the encoder cannot be had.
        ValueError: a number is outside its range, or the model is an encoder-decoder.
    """

    def __init__(
        self,
        encoder_path: str | Path | None,
        class_counts: Mapping[str, int],
        lr: float = 1e-4,
        weight_decay: float = 0.01,
        *,
        data: TextData | None = None,
    ) -> None:
        encoder = load_encoder(encoder_path)
        config = ModelConfig(lr=lr, weight_decay=weight_decay)
        super().__init__(config, encoder, encoder.config.hidden_size, class_counts)
        self.headline = dict.fromkeys(class_counts, "macro_f1")
        self._data = data

    def features(self, **inputs: Tensor) -> Tensor:
        """Mean encoder output (B, D) of `input_ids` and `attention_mask` (B, N)."""
        hidden = self.encoder(**inputs).last_hidden_state
        weights = inputs["attention_mask"].unsqueeze(-1).to(hidden.dtype)
        pooled: Tensor = (hidden * weights).sum(1) / weights.sum(1)
        return pooled

    def save_pretrained(self, folder: Path) -> None:
        """Write the encoder for `AutoModel`, the heads, and with `data` tokenizer and card."""
        self.encoder.save_pretrained(folder)  # type: ignore[operator]  # a transformers model
        save_file(self.heads.state_dict(), folder / HEADS)
        if self._data is not None:
            self._data.tokenizer.save_pretrained(folder)
            facts = {"tasks": self._data.class_names, "max_tokens": self._data.max_tokens}
            write_card(folder, "text", facts)


def make_encoder(config: TextEncoderConfig, data: TextData) -> TextTasks:
    """The model of a run.

    Args:
        config: which encoder, and how it is trained.
        data: after `setup`.

    Raises:
        FetchError: the encoder cannot be had.
        ValueError: a number is outside its range, or the model is an encoder-decoder.
    """
    return TextTasks(config.name, data.class_counts, config.lr, config.weight_decay, data=data)
