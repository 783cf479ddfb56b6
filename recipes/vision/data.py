"""Labelled images as batches."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import lightning.pytorch as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from lightning_attnbal.core import check_integer
from recipes.vision.prepare import (
    Normalisation,
    prepare_images,
    shift_and_mirror,
    split_images,
)
from recipes.vision.sources import ImageSet, load_digits_images

Labelled: TypeAlias = tuple[Tensor, Tensor]  # images and labels


class _Images(Dataset[Labelled]):
    """Normalised images in memory, each with its label."""

    def __init__(self, images: Tensor, labels: Tensor, *, augment: bool) -> None:
        self._images = images
        self._labels = labels
        self._augment = augment

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> Labelled:
        image = self._images[index]
        return shift_and_mirror(image) if self._augment else image, self._labels[index]


class ImageData(pl.LightningDataModule):
    """Labelled images as batches; the handwritten digits unless `load` says otherwise.

    In `setup` the rows that are asked for are resized and normalised, once, and kept in memory as
    float32: 4 · C · H · W bytes each, with C = 1 for grey images under one mean for all channels,
    whatever `channels`. A batch is a tuple of images (B, C, H, W) and labels (B,).

    Args:
        load: where the images come from.
        num_train: training rows, in [1, inf); None: all that validation leaves.
        num_val: validation rows, of the published training part, in [1, inf).
        num_test: test rows, of the published test part, in [1, inf); None: all.
        size: pixels a side to which images are resized (bilinear), in [1, inf); None: as they are.
        channels: C that the model wants, 1 or 3, for which grey images are repeated; None: as they
            are.
        normalisation: what the weights that are fine-tuned expect; None: that of the training rows.
        augment: whether training images are shifted and mirrored at random. What is computed from
            them can then not be cached, and digits or letters should not be mirrored.
        batch_size: images per batch B, in [1, inf).
        seed: order of the training batches; the split never depends on it.

    Raises:
        ValueError: a number is outside its range; in `setup`: there are too few rows, or `channels`
            is 1 for images in colour.

    Example:
        >>> data = ImageData(num_train=64, size=16, channels=3)
        >>> data.setup()
        >>> images, labels = next(iter(data.train_dataloader()))
        >>> tuple(images.shape), tuple(labels.shape)
        ((32, 3, 16, 16), (32,))
    """

    def __init__(
        self,
        load: Callable[[], ImageSet] = load_digits_images,
        *,
        num_train: int | None = None,
        num_val: int = 200,
        num_test: int | None = None,
        size: int | None = None,
        channels: int | None = None,
        normalisation: Normalisation | None = None,
        augment: bool = False,
        batch_size: int = 32,
        seed: int = 0,
    ) -> None:
        super().__init__()
        for name, number in (("num_train", num_train), ("num_test", num_test), ("size", size)):
            if number is not None:
                check_integer(name, number, low=1)
        if channels not in (None, 1, 3):
            msg = f"Expected `channels` to be 1, 3 or None, but got {channels!r}."
            raise ValueError(msg)
        self._load = load
        self._num_train = num_train
        self._num_val = check_integer("num_val", num_val, low=1)
        self._num_test = num_test
        self._size = size
        self._channels = channels
        self._normalisation = normalisation
        self._augment = augment
        self._batch_size = check_integer("batch_size", batch_size, low=1)
        self._seed = seed
        self._splits: dict[str, _Images] = {}
        self.class_names: tuple[str, ...] = ()

    def setup(self, stage: str = "fit") -> None:  # noqa: ARG002 (Lightning's signature)
        """Load, split, resize and normalise, once for all stages."""
        if self._splits:
            return
        source = self._load()
        parts = split_images(source, self._num_train, self._num_val, self._num_test)
        made, _ = prepare_images(parts, self._size, self._channels, self._normalisation)
        for split, (images, labels) in made.items():
            augment = self._augment and split == "train"
            self._splits[split] = _Images(images, labels, augment=augment)
        self.class_names = source.class_names

    def _loader(self, split: str) -> DataLoader[Labelled]:
        return DataLoader(
            self._splits[split],
            batch_size=self._batch_size,
            shuffle=split == "train",
            generator=torch.Generator().manual_seed(self._seed),
        )

    def train_dataloader(self) -> DataLoader[Labelled]:
        """Shuffled by `seed`."""
        return self._loader("train")

    def val_dataloader(self) -> DataLoader[Labelled]:
        """Validation rows, always in the same order."""
        return self._loader("val")

    def test_dataloader(self) -> DataLoader[Labelled]:
        """Test rows, always in the same order."""
        return self._loader("test")
