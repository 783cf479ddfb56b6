"""The schema of the text recipe."""

from __future__ import annotations

from dataclasses import dataclass, field

from hydra.core.config_store import ConfigStore

from recipes._common.config import DataConfig, ModelConfig


@dataclass
class TextDataConfig(DataConfig):
    """Schema of the recipe's `data`.

    Args:
        subset: of a hub's set that has several, such as "sst2" of "glue".
        text_column: header of the texts, for `source=files` and `source=hub`.
        label_columns: task → header of its labels; a task that is not named has a column of its
            own name.
        tokenizer: folder or name that `AutoTokenizer.from_pretrained` accepts; null: MiniLM's.
        max_tokens: texts are cut there, in [3, inf).
        bucket: tokens; batches are padded to a multiple of it, in [1, inf).
    """

    _target_: str = "recipes.text.TextData"
    subset: str | None = None
    text_column: str = "text"
    label_columns: dict[str, str] = field(default_factory=dict)
    tokenizer: str | None = None
    max_tokens: int = 48
    bucket: int = 16


@dataclass
class TextEncoderConfig(ModelConfig):
    """Schema of the recipe's `model`.

    Args:
        name: folder or name that `AutoModel.from_pretrained` accepts; null: the packaged MiniLM.
    """

    _target_: str = "recipes.text.make_encoder"
    name: str | None = None


TARGETS: tuple[str, ...] = ("recipes.text.TextData", "recipes.text.make_encoder")
"""What `_target_` may name here."""


def store(configs: ConfigStore) -> None:
    """Tell Hydra the schemas."""
    configs.store(name="text_data", node=TextDataConfig)
    configs.store(group="model", name="text_encoder_schema", node=TextEncoderConfig)
