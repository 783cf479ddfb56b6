"""A translation model for any Lightning Trainer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from lightning_attnbal.core import check_integer, check_number
from recipes._common import TasksModule, write_card
from recipes._common.module import Stage
from recipes.translation.config import TranslatorConfig
from recipes.translation.data import TranslationData
from recipes.translation.scores import score, signatures
from recipes.translation.search import BeamSearch

Batch = Mapping[str, Any]


class Translator(TasksModule):
    """An encoder-decoder of transformers, trained on the cross-entropy of the next token.

    Logs `loss` (without smoothing) under `val/` and `test/`, and in test, by beam search, `bleu`,
    `chrf` and `placeholders` of each task.

    Args:
        config: learning rate, label smoothing and beams.
        model: takes `input_ids`, `attention_mask` and `decoder_input_ids`, and generates.
        data: after `use`.

    Raises:
        ValueError: a number is outside its range.
    """

    def __init__(self, config: TranslatorConfig, model: Any, data: TranslationData) -> None:
        super().__init__(config)
        self._smoothing = check_number(
            "model.label_smoothing", config.label_smoothing, low=0, high=1, high_open=True
        )
        num_beams = check_integer("model.num_beams", config.num_beams, low=1)
        self.model = model.train()
        self.search = BeamSearch(
            model=model, codec=data.codec, num_beams=num_beams, max_tokens=data.max_tokens
        )
        self.headline = dict.fromkeys(data.tasks, "chrf")
        self._texts: dict[str, list[tuple[str, str, str]]] = {}

    def forward(self, batch: Batch) -> Tensor:
        """Logits (B, M, V) of the next token, after each of the M tokens of the decoder's input."""
        names = ("input_ids", "attention_mask", "decoder_input_ids")
        logits: Tensor = self.model(**{name: batch[name] for name in names}, use_cache=False).logits
        return logits

    def losses(self, batch: Mapping[str, Batch]) -> dict[str, Tensor]:
        """Mean cross-entropy per token of each task, with label smoothing."""
        return {task: self._loss(rows, self._smoothing) for task, rows in batch.items()}

    def _loss(self, rows: Batch, smoothing: float = 0.0) -> Tensor:
        logits = self(rows).flatten(0, 1)
        return cross_entropy(logits, rows["labels"].flatten(), label_smoothing=smoothing)

    def evaluate(self, task: str, batch: Batch, stage: Stage) -> None:
        """Log the loss; in test also translate."""
        num_tokens = int((batch["labels"] != -100).sum())
        self.log_for(task, stage, {"loss": self._loss(batch)}, num_tokens)
        if stage == "test":
            sources, references = zip(*batch["texts"], strict=True)
            answers = self.search(batch, sources, task)
            hypotheses = [best for best, *_ in answers]
            texts = self._texts.setdefault(task, [])
            texts.extend(zip(sources, hypotheses, references, strict=True))

    def on_test_epoch_end(self) -> None:
        """Score each task's translations, of all processes."""
        for task, mine in self._texts.items():
            scores = score(*zip(*_gathered(mine), strict=True))
            self.log_for(task, "test", scores, 1)
        self._texts.clear()
        self.print("sacrebleu:", *signatures().values())

    def save_pretrained(self, folder: Path) -> None:
        """Write what `AutoModelForSeq2SeqLM` and `AutoTokenizer` load."""
        facts = {"tasks": list(self.headline), "signatures": signatures()}
        write_card(folder, "translation", {**facts, **self.search.save(folder)})


def _gathered(mine: list[tuple[str, str, str]]) -> list[tuple[str, str, str]]:
    """The rows of all processes."""
    if not torch.distributed.is_initialized():
        return mine
    parts: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(parts, mine)
    return [row for part in parts for row in part]
