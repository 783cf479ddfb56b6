"""Labelled texts as batches: how they are split, tokenised and padded."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, Dataset, Sampler
from transformers import AutoTokenizer

from lightning_attnbal.core import check_integer
from recipes.text.corpus import Corpus, load_reviews

Split = Callable[[Sequence[Hashable], tuple[int, int, int]], dict[str, NDArray[np.intp]]]

_SPLITS = ("train", "val", "test")


def split_by_item(
    items: Sequence[Hashable], sizes: tuple[int | None, int, int]
) -> dict[str, NDArray[np.intp]]:
    """Row numbers of `train`, `val` and `test` such that no item is in two of them.

    Items are taken in a fixed random order, first until the test rows are full, then the validation
    rows; the rest is for training. The split never depends on a run's seed, so runs with different
    seeds are tested on the same rows.

    Args:
        items: N keys.
        sizes: rows wanted for train, val and test, each in [0, inf); None: all that are left.

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
        if len(order) < (1 if size is None else size):
            msg = f"Expected `num_{split}` to be in [1, {len(order)}] here, but got {size}."
            raise ValueError(msg)
        rows[split] = order[:size]
        order = order[~np.isin(rank[order], rank[order[:size]])]
    return rows


class LengthBatches(Sampler[list[int]]):
    """Batches of texts of about one length, in random order: less padding, so less compute.

    Texts are shuffled, sorted by length within pools of 50 batches, cut into batches, and the
    batches are shuffled.

    Args:
        lengths: N lengths.
        batch_size: texts per batch, in [1, inf).
        generator: draws the order, anew each epoch.

    Example:
        >>> batches = LengthBatches([3, 9, 4, 8], 2, torch.Generator().manual_seed(0))
        >>> sorted(sorted(batch) for batch in batches), len(batches)
        ([[0, 2], [1, 3]], 2)
    """

    _POOL = 50

    def __init__(self, lengths: Sequence[int], batch_size: int, generator: torch.Generator) -> None:
        self._lengths = torch.as_tensor(lengths)
        self.batch_size = check_integer("batch_size", batch_size, low=1)
        self.generator = generator

    def __len__(self) -> int:
        return -(-len(self._lengths) // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        order = torch.randperm(len(self._lengths), generator=self.generator)
        batches: list[torch.Tensor] = []
        for pool in torch.split(order, self._POOL * self.batch_size):
            by_length = pool[self._lengths[pool].argsort(stable=True)]
            batches.extend(torch.split(by_length, self.batch_size))
        for index in torch.randperm(len(batches), generator=self.generator):
            yield batches[index].tolist()


class EncodedTexts(Dataset[dict[str, Any]]):
    """Token ids and labels, made once.

    Args:
        ids: N lists of token ids.
        labels: (N,) class indices.

    Attributes:
        lengths: N numbers of tokens.
        labels: (N,) int64.
    """

    def __init__(self, ids: list[list[int]], labels: NDArray[np.int64]) -> None:
        self._ids = [torch.tensor(row) for row in ids]
        self.lengths = [len(row) for row in ids]
        self.labels = torch.from_numpy(labels)

    def __len__(self) -> int:
        return len(self._ids)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"input_ids": self._ids[index], "labels": self.labels[index]}


def pad_texts(rows: list[dict[str, Any]], pad_id: int, bucket: int) -> dict[str, torch.Tensor]:
    """A batch of `input_ids` (B, N), `attention_mask` (B, N) and `labels` (B,).

    Args:
        rows: B rows of `EncodedTexts`.
        pad_id: what shorter texts are filled up with.
        bucket: N is a multiple of it, in [1, inf).

    Example:
        >>> rows = EncodedTexts([[5, 6, 7], [8]], np.array([1, 0]))
        >>> pad_texts(list(rows), pad_id=0, bucket=4)["attention_mask"].tolist()
        [[1, 1, 1, 0], [1, 0, 0, 0]]
    """
    ids = pad_sequence([row["input_ids"] for row in rows], batch_first=True, padding_value=pad_id)
    ids = torch.nn.functional.pad(ids, (0, -ids.shape[1] % bucket), value=pad_id)
    lengths = torch.tensor([len(row["input_ids"]) for row in rows])
    mask = (torch.arange(ids.shape[1]) < lengths[:, None]).long()
    labels = torch.stack([row["labels"] for row in rows])
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


class ReviewsData(pl.LightningDataModule):
    """Labelled texts as padded batches; the customer reviews unless `load` says otherwise.

    Texts are tokenised once, in `setup`. A batch holds `input_ids` and `attention_mask` (B, N) and
    `labels` (B,), with N the longest text in it, rounded up to a multiple of `bucket`.

    Args:
        tokenizer_path: folder (or name) that `AutoTokenizer.from_pretrained` accepts.
        num_train: training rows, in [1, inf).
        num_val: validation rows, in [1, inf).
        num_test: test rows, in [1, inf).
        max_tokens: texts are cut there, in [3, inf).
        batch_size: texts per batch B, in [1, inf).
        seed: order of the training batches; the split never depends on it.
        load: where the texts come from.
        split: rows of train, val and test from the items and the sizes.
        bucket: tokens; few distinct shapes of batch occur, in [1, inf).
        by_length: whether a training batch holds texts of about one length.

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
        split: Split = split_by_item,
        bucket: int = 16,
        by_length: bool = False,
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
        self._split = split
        self._bucket = check_integer("bucket", bucket, low=1)
        self._by_length = by_length
        self._splits: dict[str, EncodedTexts] = {}
        self.class_names: tuple[str, ...] = ()

    def setup(self, stage: str = "fit") -> None:  # noqa: ARG002 (Lightning's signature)
        """Load, split and tokenise, once for all stages."""
        if self._splits:
            return
        corpus = self._load()
        rows = self._split(corpus.items, self._sizes)
        self.class_names = corpus.class_names
        for split, index in rows.items():
            texts = [corpus.texts[i] for i in index]
            ids = self.tokenizer(texts, truncation=True, max_length=self._max_tokens)["input_ids"]
            self._splits[split] = EncodedTexts(ids, corpus.labels[index])

    def _loader(self, split: str) -> DataLoader[dict[str, Any]]:
        rows = self._splits[split]
        generator = torch.Generator().manual_seed(self._seed)
        collate = partial(pad_texts, pad_id=self.tokenizer.pad_token_id, bucket=self._bucket)
        if split == "train" and self._by_length:
            batches = LengthBatches(rows.lengths, self._batch_size, generator)
            return DataLoader(rows, batch_sampler=batches, collate_fn=collate)
        return DataLoader(
            rows,
            batch_size=self._batch_size,
            shuffle=split == "train",
            generator=generator,
            collate_fn=collate,
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
