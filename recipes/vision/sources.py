"""Labelled images and where they come from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_attnbal.core import check_integer
from recipes._fetch import FetchError, cache_folder
from recipes.vision._fashion import DEBIAN_FOLDER, download_fashion, find_fashion
from recipes.vision._idx import read_idx

_FASHION_CLASSES = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)
_NUM_DIGITS_TEST = 360  # rows, a fifth


@dataclass(frozen=True, slots=True, eq=False)  # tensors have no single truth value to compare by
class ImageSet:
    """Labelled images in their published parts; N, M rows, C channels, H × W pixels, K classes.

    Args:
        train_images: uint8, (N, C, H, W), brightness in [0, 255].
        train_labels: int64, (N,), class indices in [0, K).
        test_images: uint8, (M, C, H, W).
        test_labels: int64, (M,), class indices in [0, K).
        class_names: K names.

    Raises:
        ValueError: a shape or type is another one, rows and labels differ in number, train and test
            differ in shape, or a label has no name.

    Example:
        >>> image = torch.zeros(1, 1, 2, 2, dtype=torch.uint8)
        >>> images = ImageSet(image, torch.tensor([0]), image, torch.tensor([1]), ("cat", "dog"))
        >>> images.shape
        (1, 2, 2)
    """

    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    class_names: tuple[str, ...]

    def __post_init__(self) -> None:
        for part, images, labels in (
            ("train", self.train_images, self.train_labels),
            ("test", self.test_images, self.test_labels),
        ):
            _check_images(f"{part}_images", images)
            _check_labels(f"{part}_labels", labels, len(images), len(self.class_names))
        if self.test_images.shape[1:] != self.train_images.shape[1:]:
            msg = (
                f"Expected `test_images` to have images of shape {self.shape}, as the training "
                f"images have, but got {tuple(self.test_images.shape[1:])}."
            )
            raise ValueError(msg)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels C, height H and width W in pixels."""
        channels, height, width = self.train_images.shape[1:]
        return channels, height, width


def _check_images(name: str, images: Tensor) -> None:
    if images.dtype != torch.uint8 or images.ndim != 4 or not images.numel():
        msg = (
            f"Expected `{name}` to be uint8 of shape (N, C, H, W) with N, C, H, W in [1, inf), "
            f"but got {images.dtype} of shape {tuple(images.shape)}."
        )
        raise ValueError(msg)


def _check_labels(name: str, labels: Tensor, num_rows: int, num_classes: int) -> None:
    if labels.dtype != torch.int64 or tuple(labels.shape) != (num_rows,):
        msg = (
            f"Expected `{name}` to be int64 of shape ({num_rows},), one label an image, "
            f"but got {labels.dtype} of shape {tuple(labels.shape)}."
        )
        raise ValueError(msg)
    lowest, highest = int(labels.min()), int(labels.max())
    if lowest < 0 or highest >= num_classes:
        msg = f"Expected `{name}` to be in [0, {num_classes}), but got [{lowest}, {highest}]."
        raise ValueError(msg)


def load_digits_images() -> ImageSet:
    """Handwritten digits, 8 × 8 grey, 1,437 for training and 360 for testing; always at hand.

    The rows stay in the order of the file, and the last fifth is for testing: consecutive digits
    are by one hand, and a shuffled split would test on hands seen in training (the nearest
    neighbour is then right in 0.99 of the cases instead of 0.96).

    Source: Alpaydin & Kaynak, "Optical Recognition of Handwritten Digits", UCI, 1998 (its test
    part), as packaged by scikit-learn.
    """
    from sklearn.datasets import load_digits  # type: ignore[import-untyped]  # it ships no types

    digits = load_digits()
    pixels = torch.from_numpy(digits.images).mul(255 / 16).round()  # brightness in [0, 16] there
    images = pixels.to(torch.uint8).unsqueeze(1)
    labels = torch.from_numpy(digits.target).long()
    cut = len(labels) - _NUM_DIGITS_TEST
    names = tuple(str(digit) for digit in range(10))
    return ImageSet(images[:cut], labels[:cut], images[cut:], labels[cut:], names)


def load_fashion_mnist(folder: str | Path | None = None, *, download: bool = False) -> ImageSet:
    """Pictures of clothes, 28 × 28 grey, 10 classes, 60,000 for training and 10,000 for testing.

    Source: Xiao et al., "Fashion-MNIST", 2017 (MIT).

    Args:
        folder: where the four IDX files (`.gz` or unpacked) lie, or the root that
            `torchvision.datasets.FashionMNIST` was given. None: where the Debian package
            `dataset-fashion-mnist` puts them, else the user's cache folder.
        download: torchvision fetches the files into `folder` (None: the user's cache folder) first;
            it skips those that are there.

    Raises:
        FetchError: the files are in none of these places, or could not be downloaded.
        ValueError: a file is damaged or of another kind.
    """
    if download:
        folder = cache_folder() if folder is None else Path(folder)
        download_fashion(folder)
    files = find_fashion([DEBIAN_FOLDER, cache_folder()] if folder is None else [Path(folder)])
    train_images, train_labels, test_images, test_labels = (read_idx(file) for file in files)
    return ImageSet(
        train_images.unsqueeze(1),
        train_labels.long(),
        test_images.unsqueeze(1),
        test_labels.long(),
        _FASHION_CLASSES,
    )


def load_cifar10(folder: str | Path, *, download: bool = False) -> ImageSet:
    """Photos of things and animals, 32 × 32 in colour, 10 classes, 50,000 and 10,000.

    Source: Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009 (no licence is
    stated), read by `torchvision.datasets.CIFAR10`.

    Args:
        folder: the root that torchvision is given; `cifar-10-batches-py` lies in it.
        download: torchvision fetches the files into `folder` first; it skips those that are there.

    Raises:
        FetchError: the files are not there, or could not be downloaded.
    """
    from torchvision.datasets import CIFAR10

    return _load_cifar(CIFAR10, "cifar-10-batches-py", Path(folder), download=download)


def load_cifar100(folder: str | Path, *, download: bool = False) -> ImageSet:
    """The same with 100 classes, `cifar-100-python` in `folder`; see `load_cifar10`."""
    from torchvision.datasets import CIFAR100

    return _load_cifar(CIFAR100, "cifar-100-python", Path(folder), download=download)


def _load_cifar(kind: Any, below: str, folder: Path, *, download: bool) -> ImageSet:
    name = "-".join(below.upper().split("-")[:2])
    try:
        train, test = (kind(folder, train=part, download=download) for part in (True, False))
    except (OSError, RuntimeError) as error:
        msg = (
            f"torchvision found or fetched no {name} in {folder} ({error}). Let torchvision fetch "
            f"it with `download=True`, or put `{below}` there. Fashion-MNIST "
            "(`load_fashion_mnist()`) also comes in the Debian package `dataset-fashion-mnist`; "
            "the digits of `load_digits_images()` need no file."
        )
        raise FetchError(msg) from error
    images = [
        torch.from_numpy(part.data).permute(0, 3, 1, 2).contiguous() for part in (train, test)
    ]
    labels = [torch.tensor(part.targets) for part in (train, test)]
    return ImageSet(images[0], labels[0], images[1], labels[1], tuple(train.classes))


def make_synthetic_images(
    num_train: int = 512,
    num_test: int = 128,
    *,
    shape: tuple[int, int, int] = (1, 16, 16),
    num_classes: int = 4,
    seed: int = 0,
) -> ImageSet:
    """Noisy stripes whose direction is the class; learnable, for tests.

    Args:
        num_train: training images, in [1, inf).
        num_test: test images, in [1, inf).
        shape: channels C, height H and width W in pixels.
        num_classes: directions K, in [2, inf).
        seed: of noise, phases and labels.

    Raises:
        ValueError: a number is outside its range.

    Example:
        >>> images = make_synthetic_images(8, 4, shape=(3, 10, 12))
        >>> tuple(images.train_images.shape), images.class_names[:2]
        ((8, 3, 10, 12), ('direction 0', 'direction 1'))
    """
    check_integer("num_classes", num_classes, low=2)
    num_rows = check_integer("num_train", num_train, low=1) + check_integer(
        "num_test", num_test, low=1
    )
    draw = torch.Generator().manual_seed(seed)
    labels = torch.randint(num_classes, (num_rows,), generator=draw)
    phases = 2 * torch.pi * torch.rand(num_rows, 1, 1, 1, generator=draw)
    angles = (torch.pi * labels / num_classes).view(-1, 1, 1, 1)
    rows, columns = torch.arange(shape[1]).view(-1, 1), torch.arange(shape[2])
    waves = torch.sin(columns * angles.cos() + rows * angles.sin() + phases)  # 2π pixels long
    noise = torch.randn(num_rows, *shape, generator=draw)
    images = (128 + 80 * waves + 24 * noise).clamp(0, 255).to(torch.uint8)
    names = tuple(f"direction {i}" for i in range(num_classes))
    return ImageSet(
        images[:num_train], labels[:num_train], images[num_train:], labels[num_train:], names
    )
