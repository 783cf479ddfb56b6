"""What is trained in the comparison: data, model and what the full run would be."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import lightning.pytorch as pl
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from recipes._common.config import Source
from recipes.text import Corpus, ReviewsData, TextClassifier, packaged_encoder
from recipes.translation import MBartConfig, TranslationData, TranslationDataConfig, make_mbart
from recipes.vision import (
    EFFICIENTNET_LITE0,
    ImageClassifier,
    ImageData,
    load_fashion_mnist,
    pretrained_efficientnet_lite0,
    small_vit,
)

_DEEP = ("last-8-cached", "last-8", "last-12-cached", "last-12")  # more units than most models have
_ADAPTERS = ("lora", "rslora", "dora", "adalora")  # have no linear layer to sit on in a CNN
BANKING77 = "BANKING77_DIR"  # folder of train.csv and test.csv, columns text and category


@dataclass(frozen=True, kw_only=True)
class Task(ABC):
    """A data set, a model, and the full run that a budget is a share of.

    Args:
        name: of the task.
        epochs: length of the full run, in [1, inf).
        base_lr: middle of the grid of learning rates for full training, in (0, inf).
        precision: of the Trainer; the same for all arms.
        metric: of the test scores, that rates are tuned by and tables show; chrF is in percent,
            the others are shares.
        without: arms that are left out unless they are asked for, as they are others' doubles on
            this model or cannot be had on it.
        revision: counted up when it changes otherwise than by its settings, so that finished runs
            are run again.
    """

    name: str
    epochs: int
    base_lr: float
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    metric: Literal["accuracy", "macro_f1", "chrf"] = "accuracy"
    without: tuple[str, ...] = _DEEP
    revision: int = 1

    @abstractmethod
    def data(self, seed: int, *, is_dev: bool) -> pl.LightningDataModule:
        """The batches; with `is_dev` rows of the training set stand in for the test set."""

    @abstractmethod
    def module(self, data: pl.LightningDataModule, lr: float) -> pl.LightningModule:
        """A fresh model; its head is drawn from the global random state."""


@dataclass(frozen=True, kw_only=True)
class TextTask(Task):
    """Texts with MiniLM, mean pooling and a linear head; the embeddings stay as they are.

    The embeddings are left out in every method alike: their dense update takes as long as several
    layers, costs no FLOPs, and would make wall time and FLOPs tell two stories.
    """

    num_train: int
    num_test: int
    num_dev: int = 1000
    max_tokens: int = 64
    batch_size: int = 32

    def module(self, data: pl.LightningDataModule, lr: float) -> pl.LightningModule:
        """MiniLM with a fresh head."""
        assert isinstance(data, ReviewsData)
        module = TextClassifier(packaged_encoder(), len(data.class_names), lr=lr)
        module.model.base_model.embeddings.requires_grad_(requires_grad=False)
        return module

    def _batches(self, seed: int, sizes: tuple[int, int, int], **options: object) -> ReviewsData:
        train, val, test = sizes
        data = ReviewsData(
            packaged_encoder(),
            train,
            num_val=val,
            num_test=test,
            max_tokens=self.max_tokens,
            batch_size=self.batch_size,
            seed=seed,
            bucket=8,
            by_length=True,
            **options,  # type: ignore[arg-type]  # load and split
        )
        data.setup()
        return data


@dataclass(frozen=True, kw_only=True)
class Banking(TextTask):
    """BANKING77 (Casanueva et al., 2020): 77 intents, 10,003 training and 3,080 test queries."""

    def data(self, seed: int, *, is_dev: bool) -> pl.LightningDataModule:
        """All training rows, tested on the test set; on held-out training rows with `is_dev`."""
        corpus = banking_corpus()
        sizes = (self.num_train, 1, self.num_test)
        split = partial(split_by_source, num_dev=self.num_dev) if is_dev else split_by_source
        return self._batches(seed, sizes, load=lambda: corpus, split=split)


@dataclass(frozen=True, kw_only=True)
class Reviews(TextTask):
    """Customer reviews of clothes, 1 to 5 stars."""

    def data(self, seed: int, *, is_dev: bool) -> pl.LightningDataModule:
        """Split by item; with `is_dev` the validation rows stand in for the test rows."""
        sizes = (self.num_train, self.num_dev, self.num_test)
        data = self._batches(seed, sizes)
        return on_validation_rows(data) if is_dev else data


@dataclass(frozen=True, kw_only=True)
class Fashion(Task):
    """Fashion-MNIST with EfficientNet-lite0, pretrained on ImageNet.

    Args:
        size: of the images, in pixels.
    """

    num_train: int
    num_test: int
    num_dev: int = 1000
    size: int = 48
    batch_size: int = 32

    def data(self, seed: int, *, is_dev: bool) -> pl.LightningDataModule:
        """Three equal channels, resized once."""
        return self._images(seed, is_dev, channels=3, normalisation=EFFICIENTNET_LITE0)

    def module(
        self,
        data: pl.LightningDataModule,  # noqa: ARG002 (ten classes)
        lr: float,
    ) -> pl.LightningModule:
        """The backbone with a fresh classifier."""
        return ImageClassifier(pretrained_efficientnet_lite0(10), 10, lr=lr)

    def _images(self, seed: int, is_dev: bool, **options: Any) -> pl.LightningDataModule:
        """With `is_dev` the validation rows stand in for the test rows."""
        data = ImageData(
            load_fashion_mnist,
            num_train=self.num_train,
            num_val=self.num_dev,
            num_test=self.num_test,
            size=self.size,
            batch_size=self.batch_size,
            seed=seed,
            **options,
        )
        data.setup("fit")
        return on_validation_rows(data) if is_dev else data


@dataclass(frozen=True, kw_only=True)
class FashionFromScratch(Fashion):
    """Fashion-MNIST with a small vision transformer that starts from random weights."""

    def data(self, seed: int, *, is_dev: bool) -> pl.LightningDataModule:
        """As they are, 28 × 28 grey."""
        return self._images(seed, is_dev)

    def module(
        self,
        data: pl.LightningDataModule,  # noqa: ARG002 (ten classes)
        lr: float,
    ) -> pl.LightningModule:
        """Patches of 7 × 7, width 128, 6 blocks."""
        return ImageClassifier(small_vit(self.size, 7, 128, 6, 4, 10), 10, lr=lr)


@dataclass(frozen=True, kw_only=True)
class Translation(Task):
    """Interface strings from English to French, an encoder-decoder that starts from random weights.

    As in the recipe: the tokens' embeddings start near those of their translations. All strings of
    its French, tested by beam search.

    Args:
        pair: languages.
        vocab_size: tokens of both.
        source: of the pairs, as in the recipe.
    """

    pair: str = "en-fr"
    batch_size: int = 32
    vocab_size: int = 8000
    source: str = "embedded"

    def data(self, seed: int, *, is_dev: bool) -> pl.LightningDataModule:
        """Split by content; with `is_dev` the validation rows stand in for the test rows."""
        config = TranslationDataConfig(
            source=Source(self.source),
            tasks=[self.pair],
            batch_size=self.batch_size,
            bucket=4,
            seed=seed,
        )
        data = (_ValidationPairs if is_dev else TranslationData)(config)
        data.setup()
        return data

    def module(self, data: pl.LightningDataModule, lr: float) -> pl.LightningModule:
        """Width 128, two blocks of encoder and one of decoder."""
        assert isinstance(data, TranslationData)
        config = MBartConfig(
            lr=lr,
            label_smoothing=0.0,
            vocab_size=self.vocab_size,
            width=128,
            encoder_layers=2,
            decoder_layers=1,
            heads=4,
            ffn=512,
            dropout=0.0,
        )
        return make_mbart(config, data)


class _ValidationPairs(TranslationData):
    """Tested on its validation rows."""

    def _prepare(self) -> None:
        super()._prepare()
        for task in self.tasks:
            self._pairs[task, "test"] = self._pairs[task, "val"]


def on_validation_rows(data: pl.LightningDataModule) -> pl.LightningDataModule:
    """The same data, tested on its validation rows."""
    data.test_dataloader = data.val_dataloader  # type: ignore[method-assign]
    return data


def banking_corpus() -> Corpus:
    """Both files as one table; the item of a row is the file it is from.

    Raises:
        FileNotFoundError: the folder is not named or has no such files.
    """
    folder = Path(os.environ.get(BANKING77, ""))
    names = ("train", "test")
    if not all((folder / f"{name}.csv").exists() for name in names):
        msg = (
            f"Expected ${BANKING77} to name a folder with train.csv and test.csv of BANKING77 "
            f"(columns text and category), but got {str(folder)!r}."
        )
        raise FileNotFoundError(msg)
    frames = [pd.read_csv(folder / f"{name}.csv").assign(source=name) for name in names]
    frame = pd.concat(frames, ignore_index=True)
    codes, classes = pd.factorize(frame["category"], sort=True)
    return Corpus(
        frame["text"].tolist(), codes.astype(np.int64), frame["source"].tolist(), tuple(classes)
    )


def split_by_source(
    items: Sequence[Hashable], sizes: tuple[int, int, int], num_dev: int = 0
) -> dict[str, NDArray[np.intp]]:
    """Rows of "train" and "test" as they are; with `num_dev`, held-out training rows as the test.

    Both are drawn at random, the same at each call: files may be sorted by class.

    Example:
        >>> rows = split_by_source(["train", "train", "test"], (2, 1, 1), num_dev=1)
        >>> len(rows["train"]), len(rows["test"])
        (1, 1)
    """
    source = np.asarray(items)
    rng = np.random.default_rng(0)
    rows = rng.permutation(np.flatnonzero(source == "train"))
    dev, train = rows[:num_dev], rows[num_dev:]
    test = dev if num_dev else rng.permutation(np.flatnonzero(source == "test"))
    return {"train": train[: sizes[0]], "val": test[: sizes[1]], "test": test[: sizes[2]]}


TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Banking(
            name="banking77",
            epochs=3,
            base_lr=8e-4,
            num_train=10_003,
            num_test=3_080,
            precision="bf16-mixed",
            revision=2,
        ),
        Reviews(
            name="reviews",
            epochs=3,
            base_lr=4e-4,
            num_train=6_000,
            num_test=4_000,
            precision="bf16-mixed",
            metric="macro_f1",
            revision=2,
        ),
        Fashion(
            name="fashion",
            epochs=4,
            base_lr=1e-3,
            num_train=5_000,
            num_test=10_000,
            without=_ADAPTERS,
        ),
        FashionFromScratch(
            name="fashion-scratch",
            epochs=12,
            base_lr=1e-3,
            num_train=10_000,
            num_test=10_000,
            size=28,
            batch_size=64,
        ),
        Translation(
            name="translation",
            epochs=8,
            base_lr=5e-3,
            precision="bf16-mixed",
            metric="chrf",
            without=(*_DEEP, *_ADAPTERS),
        ),
    )
}
