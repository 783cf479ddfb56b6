"""Labelled texts as batches: how they are split, tokenised and padded."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, Dataset
from transformers import AutoTokenizer

from lightning_attnbal.core import check_integer
from recipes.text.corpus import Corpus, load_reviews

_SPLITS = ("train", "val", "test")
_BUCKET = 16  # tokens; batches are padded to a multiple of it, so that few distinct shapes occur


def split_by_item(
    items: Sequence[Hashable], sizes: tuple[int, int, int]
) -> dict[str, NDArray[np.intp]]:
    """Row numbers of `train`, `val` and `test` such that no item is in two of them.

    Items are taken in a fixed random order, first until the test rows are full, then the validation
    rows; the rest is for training. The split never depends on a run's seed, so runs with different
    seeds are tested on the same rows.

    Args:
        items: N keys.
        sizes: rows wanted for train, val and test, each in [1, inf).

    Raises:
        ValueError: there are too few rows.

    Example:
        >>> rows = split_by_item([0, 0, 1, 1, 2, 2], sizes=(2, 1, 2))
        >>> sorted(len(r) for r in rows.values())
        [1, 2, 2]
    """
    codes, names = pd.factorize(pd.Series(items))
    rng = np.random.default_rng(0)
    rank = rng.permutation(len(names))[codes]
    order = rng.permutation(len(codes))
    order = order[np.argsort(rank[order], kind="stable")]
    rows: dict[str, NDArray[np.intp]] = {}
    for split, size in zip(reversed(_SPLITS), reversed(sizes), strict=True):
        order = rng.permutation(order) if split == "train" else order
        if len(order) < size:
            msg = f"Expected `num_{split}` to be in [1, {len(order)}] here, but got {size}."
            raise ValueError(msg)
        rows[split] = order[:size]
        order = order[~np.isin(rank[order], rank[order[:size]])]
    return rows


class _Encoded(Dataset[dict[str, Any]]):
    """Token ids and labels, made once."""

    def __init__(self, ids: list[list[int]], labels: NDArray[np.int64]) -> None:
        self._ids = [torch.tensor(row) for row in ids]
        self._labels = torch.from_numpy(labels)

    def __len__(self) -> int:
        return len(self._ids)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"input_ids": self._ids[index], "labels": self._labels[index]}


def _collate(rows: list[dict[str, Any]], pad_id: int) -> dict[str, torch.Tensor]:
    """Batch of ids (B, N), mask (B, N) and labels (B,), N a multiple of the bucket."""
    ids = pad_sequence([row["input_ids"] for row in rows], batch_first=True, padding_value=pad_id)
    ids = torch.nn.functional.pad(ids, (0, -ids.shape[1] % _BUCKET), value=pad_id)
    lengths = torch.tensor([len(row["input_ids"]) for row in rows])
    mask = (torch.arange(ids.shape[1]) < lengths[:, None]).long()
    labels = torch.stack([row["labels"] for row in rows])
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


class ReviewsData(pl.LightningDataModule):
    """Labelled texts as padded batches; the customer reviews unless `load` says otherwise.

    Texts are tokenised once, in `setup`. A batch holds `input_ids` and `attention_mask` (B, N) and
    `labels` (B,), with N the longest text in it, rounded up to a multiple of 16.

    Args:
        tokenizer_path: folder (or name) that `AutoTokenizer.from_pretrained` accepts.
        num_train: training rows, in [1, inf).
        num_val: validation rows, in [1, inf).
        num_test: test rows, in [1, inf).
        max_tokens: texts are cut there, in [3, inf).
        batch_size: texts per batch B, in [1, inf).
        seed: order of the training batches; the split never depends on it.
        load: where the texts come from.

    Raises:
        ValueError: a number is outside its range, or the table has too few rows.
    """

    def __init__(
        self,
        tokenizer_path: str | Path,
        num_train: int,
        *,
        num_val: int = 500,
        num_test: int = 2000,
        max_tokens: int = 64,
        batch_size: int = 32,
        seed: int = 0,
        load: Callable[[], Corpus] = load_reviews,
    ) -> None:
        super().__init__()
        self.tokenizer = AutoTokenizer.from_pretrained(str(tokenizer_path))
        self._sizes = (
            check_integer("num_train", num_train, low=1),
            check_integer("num_val", num_val, low=1),
            check_integer("num_test", num_test, low=1),
        )
        self._max_tokens = check_integer("max_tokens", max_tokens, low=3)
        self._batch_size = check_integer("batch_size", batch_size, low=1)
        self._seed = seed
        self._load = load
        self._splits: dict[str, _Encoded] = {}
        self.class_names: tuple[str, ...] = ()

    def setup(self, stage: str = "fit") -> None:  # noqa: ARG002 (Lightning's signature)
        """Load, split and tokenise, once for all stages."""
        if self._splits:
            return
        corpus = self._load()
        rows = split_by_item(corpus.items, self._sizes)
        self.class_names = corpus.class_names
        for split, index in rows.items():
            texts = [corpus.texts[i] for i in index]
            ids = self.tokenizer(texts, truncation=True, max_length=self._max_tokens)["input_ids"]
            self._splits[split] = _Encoded(ids, corpus.labels[index])

    def _loader(self, split: str) -> DataLoader[dict[str, Any]]:
        return DataLoader(
            self._splits[split],
            batch_size=self._batch_size,
            shuffle=split == "train",
            generator=torch.Generator().manual_seed(self._seed),
            collate_fn=partial(_collate, pad_id=self.tokenizer.pad_token_id),
        )

    def train_dataloader(self) -> DataLoader[dict[str, Any]]:
        """Shuffled by `seed`."""
        return self._loader("train")

    def val_dataloader(self) -> DataLoader[dict[str, Any]]:
        """Validation rows, always in the same order."""
        return self._loader("val")

    def test_dataloader(self) -> DataLoader[dict[str, Any]]:
        """Test rows, always in the same order."""
        return self._loader("test")
