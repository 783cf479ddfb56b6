"""A trained model in use: sentences in, translations out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lightning_attnbal.core import check_choice
from recipes._common import read_card
from recipes.translation.codec import collate_ids, cut
from recipes.translation.search import BeamSearch

_BATCH = 32  # sentences


@dataclass(frozen=True, slots=True)
class SentenceTranslator:
    """Translates sentences, in batches.

    Args:
        search: model and tokenizers.
        tasks: pairs of languages it was trained on.
    """

    search: BeamSearch
    tasks: tuple[str, ...]

    def __call__(
        self, inputs: Sequence[str], *, task: str | None = None, top: int = 5
    ) -> list[dict[str, Any]]:
        """For each sentence its translation, and `others` that were nearly as probable.

        Args:
            inputs: sentences.
            task: pair of languages; None: the first one.
            top: translations of each, in [1, inf); at most as many as there are beams.

        Raises:
            ValueError: the model has no such task.
        """
        task = check_choice("task", task or self.tasks[0], self.tasks)
        codec, most = self.search.codec, self.search.max_tokens
        records = []
        for start in range(0, len(inputs), _BATCH):
            sources = list(inputs[start : start + _BATCH])
            rows = [cut(ids, most) for ids in codec.encode_sources(sources, task)]
            ids = collate_ids(rows, codec.source.pad_token_id, 1)
            lengths = torch.tensor([len(row) for row in rows])
            mask = (torch.arange(ids.shape[1]) < lengths[:, None]).long()
            batch = {"input_ids": ids, "attention_mask": mask}
            answers = self.search(batch, sources, task, top)
            records += [
                {"source": source, "task": task, "translation": best, "others": others}
                for source, (best, *others) in zip(sources, answers, strict=True)
            ]
        return records


def load_predictor(folder: Path) -> SentenceTranslator:
    """The model that a run left in `folder`.

    Raises:
        FileNotFoundError: the folder holds no model of a recipe.
    """
    card = read_card(folder)
    return SentenceTranslator(BeamSearch.load(folder, card), tuple(card["tasks"]))
