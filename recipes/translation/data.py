"""Pairs of sentences as batches of token ids."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset

from lightning_attnbal.core import check_choice, check_integer
from recipes._common import Source, Split, TasksData
from recipes.text.data import LengthBatches
from recipes.translation.baselines import copied, word_table
from recipes.translation.codec import Codec, collate_ids, cut
from recipes.translation.config import TranslationDataConfig
from recipes.translation.scores import score
from recipes.translation.sources import EMBEDDED, load_files, load_hub, load_strings, make_pairs
from recipes.translation.splits import divide

Pair = tuple[str, str]


class TranslationData(TasksData):
    """Translation of one or several pairs of languages.

    A batch of B pairs holds `input_ids` and `attention_mask` (B, N), `decoder_input_ids` and
    `labels` (B, M), -100 where there is nothing; in test also `texts`, the B pairs themselves.
    N and M are multiples of `bucket`. Training batches hold pairs of about one length. What the
    source ids are does not depend on the target language, unless a pretrained model wants it so.

    The model says how sentences become ids: `use`.

    Args:
        config: what to load and how to batch it.

    Raises:
        ValueError: a task is no pair of languages or not in the data, or a number is outside its
            range.
    """

    def __init__(self, config: TranslationDataConfig) -> None:
        super().__init__(config)
        self.max_tokens = check_integer("data.max_tokens", config.max_tokens, low=4)
        self.bucket = check_integer("data.bucket", config.bucket, low=1)
        self.tasks = self.tasks or EMBEDDED
        for task in self.tasks:
            if config.source in (Source.embedded, Source.synthetic):
                check_choice("data.tasks", task, EMBEDDED)
            if len(task.split("-")) != 2:
                msg = f"Expected `data.tasks` to be pairs such as 'en-de', but got {task!r}."
                raise ValueError(msg)

    def _prepare(self) -> None:
        table = divide(self._load())
        most: dict[Split, int | None] = {
            "train": self.config.num_train,
            "val": self.config.num_val,
            "test": self.config.num_test,
        }
        self._pairs: dict[tuple[str, Split], list[Pair]] = {}
        for task in self.tasks:
            for split, limit in most.items():
                rows = table[(table.task == task) & (table.split == split)]
                pairs = list(zip(rows.source, rows.target, strict=True))[:limit]
                if not pairs:
                    msg = f"Expected {task} to have rows for {split}, but got none; give more text."
                    raise ValueError(msg)
                self._pairs[task, split] = pairs

    def _load(self) -> Any:
        config = self.config
        if config.source is Source.embedded:
            return load_strings(self.tasks)
        if config.source is Source.hub:
            return load_hub(str(config.name), self.tasks, config.num_train)
        if config.source is Source.files:
            return load_files(Path(str(config.path)), self.tasks)
        return make_pairs(self.tasks)

    def pairs(self, task: str, split: Split) -> list[Pair]:
        """Sources and translations."""
        return self._pairs[task, split]

    def use(self, codec: Codec) -> None:
        """Encode all rows by `codec`."""
        self.codec = codec
        self._rows = {(task, split): _Rows(self, codec, task, split) for task, split in self._pairs}

    def token_pairs(self) -> Iterator[tuple[list[int], list[int]]]:
        """Token ids of training sources and targets of all tasks, without start and end."""
        for task in self.tasks:
            for row in self._rows[task, "train"]:
                yield row["source"].tolist()[:-1], row["target"].tolist()[1:-1]

    def rows(self, task: str, split: Split) -> Dataset[Any]:
        """Encoded pairs, after `use`; those of validation and test in order of length."""
        return self._rows[task, split]

    def batches(self, task: str, generator: torch.Generator) -> LengthBatches:
        """Training pairs that pad to about the same shape go together."""
        lengths = self._rows[task, "train"].lengths
        rounded = [-(-n // self.bucket) * 1000 - (-m // self.bucket) for n, m in lengths]
        return LengthBatches(rounded, self.config.batch_size, generator)

    def collate(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """A padded batch."""
        pads = self.codec.source.pad_token_id, self.codec.target.pad_token_id
        sources = collate_ids([row["source"] for row in rows], pads[0], self.bucket)
        inputs = collate_ids([row["target"][:-1] for row in rows], pads[1], self.bucket)
        labels = collate_ids([row["target"][1:] for row in rows], -100, self.bucket)
        lengths = torch.tensor([len(row["source"]) for row in rows])
        batch = {
            "input_ids": sources,
            "attention_mask": (torch.arange(sources.shape[1]) < lengths[:, None]).long(),
            "decoder_input_ids": inputs,
            "labels": labels,
        }
        texts = [row["texts"] for row in rows if "texts" in row]
        return {**batch, "texts": texts} if texts else batch

    def baselines(self) -> dict[str, dict[str, float]]:
        """Copying the source, and word for word by a table learnt from the training pairs."""
        scores: dict[str, dict[str, float]] = {"copied": {}, "word table": {}}
        for task in self.tasks:
            sources, references = zip(*self.pairs(task, "test"), strict=True)
            for name, hypotheses in (
                ("copied", copied(sources)),
                ("word table", word_table(self.pairs(task, "train"))(sources)),
            ):
                for metric, value in score(sources, hypotheses, references).items():
                    scores[name][f"{task}/{metric}"] = value
        return scores


class _Rows(Dataset[dict[str, Any]]):
    """Encoded once; training pairs that are too long are left out, others cut."""

    def __init__(self, data: TranslationData, codec: Codec, task: str, split: Split) -> None:
        pairs, most = data.pairs(task, split), data.max_tokens
        sources = codec.encode_sources([source for source, _ in pairs], task)
        encoded = list(zip(sources, codec.encode_targets(pairs, task), pairs, strict=True))
        if split == "train":
            encoded = [row for row in encoded if len(row[0]) <= most and len(row[1]) <= most]
        else:
            encoded.sort(key=lambda row: len(row[0]))
        self.lengths = [(len(source), len(target)) for source, target, _ in encoded]
        self._rows = [
            {"source": cut(source, most), "target": cut(target, most), "texts": pair}
            for source, target, pair in encoded
        ]
        if split != "test":
            for row in self._rows:
                del row["texts"]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self._rows[index]
