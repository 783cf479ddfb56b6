"""What is done to images before a model sees them: plain functions that know no loader."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import interpolate, pad

from lightning_attnbal.core import check_integer
from recipes.vision.sources import ImageSet

_SHIFT = 8  # augmentation moves an image by at most a part in eight of its side, 4 of 32 pixels


@dataclass(frozen=True, slots=True)
class Normalisation:
    """Brightness x, in [0, 1], becomes (x - mean) / std.

    Args:
        mean: one number per channel, or one for all.
        std: as many, each in (0, inf).

    Raises:
        ValueError: the lengths differ, or a `std` is not positive.

    Example:
        >>> Normalisation(mean=(0.5,), std=(0.25,))(torch.ones(1, 1, 1, 1)).item()
        2.0
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.std) or not self.mean:
            msg = (
                "Expected `mean` and `std` to be of one length in [1, inf), "
                f"but got {len(self.mean)} and {len(self.std)}."
            )
            raise ValueError(msg)
        if min(self.std) <= 0:
            msg = f"Expected `std` to be in (0, inf), but got {self.std}."
            raise ValueError(msg)

    @classmethod
    def of(cls, images: Tensor) -> Normalisation:
        """That which gives `images` (N, C, H, W) mean 0 and deviation 1 in each channel."""
        std, mean = torch.std_mean(images, dim=(0, 2, 3), correction=0)
        return cls(tuple(mean.tolist()), tuple(std.clamp_min(1e-6).tolist()))

    def __call__(self, images: Tensor) -> Tensor:
        """Normalised `images` (N, C, H, W); grey ones get as many channels as there are means."""
        mean, std = torch.tensor(self.mean), torch.tensor(self.std)
        return (images - mean.view(-1, 1, 1)) / std.view(-1, 1, 1)


IMAGENET = Normalisation(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
"""What most weights trained on ImageNet expect."""


def resize(images: Tensor, size: int | None) -> Tensor:
    """Brightness in [0, 1], float32, of uint8 `images` (N, C, H, W), `size` pixels a side.

    Example:
        >>> tuple(resize(torch.zeros(2, 1, 8, 8, dtype=torch.uint8), size=12).shape)
        (2, 1, 12, 12)
    """
    scaled = images.float().div_(255)
    if size is None or images.shape[-2:] == (size, size):
        return scaled
    return interpolate(scaled, (size, size), mode="bilinear", antialias=True)


def with_channels(images: Tensor, channels: int | None) -> Tensor:
    """`images` (N, C, H, W) with C = `channels`; a view of them, grey ones repeated.

    Raises:
        ValueError: they are not grey and have another number of channels.

    Example:
        >>> tuple(with_channels(torch.zeros(2, 1, 8, 8), channels=3).shape)
        (2, 3, 8, 8)
    """
    if images.shape[1] not in (1, channels or images.shape[1]):
        msg = f"Expected `channels` to be {images.shape[1]} for these images, but got {channels}."
        raise ValueError(msg)
    return images.expand(-1, channels or -1, -1, -1)


def shift(image: Tensor) -> Tensor:
    """`image` (C, H, W) moved by up to an eighth of its sides.

    What comes in at the edges is 0, the mean of normalised images. Random numbers are PyTorch's
    global ones, so that `FixedViews` can make them repeat.

    Source: He et al., "Deep Residual Learning for Image Recognition", 2016, section 4.2 (4 pixels
    of CIFAR-10's 32).
    """
    height, width = image.shape[-2:]
    down, right = height // _SHIFT, width // _SHIFT
    top = int(torch.randint(2 * down + 1, ()))
    left = int(torch.randint(2 * right + 1, ()))
    return pad(image, (right, right, down, down))[..., top : top + height, left : left + width]


def shift_and_mirror(image: Tensor) -> Tensor:
    """`image` (C, H, W) moved as by `shift`, and mirrored in half of the cases."""
    moved = shift(image)
    return moved.flip(-1) if torch.rand(()) < 0.5 else moved


def split_images(
    source: ImageSet, num_train: int | None, num_val: int, num_test: int | None
) -> dict[str, tuple[Tensor, Tensor]]:
    """Images and labels of `train`, `val` and `test`.

    Rows come in fixed random orders, the validation rows first of the published training part, test
    rows of the published test part. So a split depends on no run's seed, validation rows not on
    `num_train`, and a larger `num_train` only adds rows to a smaller one. Images of the training
    part that are also in the test part are left out, and so are training images that are also
    among the validation rows, pixel by pixel.

    Args:
        source: N training and M test images.
        num_train: in [1, N - num_val]; None: all that validation leaves.
        num_val: in [1, N).
        num_test: in [1, M]; None: all.

    Raises:
        ValueError: there are too few rows.

    Example:
        >>> from recipes.vision.sources import make_synthetic_images
        >>> parts = split_images(make_synthetic_images(10, 5), None, num_val=3, num_test=2)
        >>> {name: len(labels) for name, (_, labels) in parts.items()}
        {'train': 7, 'val': 3, 'test': 2}
    """
    rows, test = _order(len(source.train_labels)), _order(len(source.test_labels))
    rows = _without(rows, source.train_images, source.test_images)
    check_integer("num_val", num_val, low=1, high=len(rows) - 1)
    left = _without(rows[num_val:], source.train_images, source.train_images[rows[:num_val]])
    train = left[: check_integer("num_train", num_train or len(left), low=1, high=len(left))]
    test = test[: check_integer("num_test", num_test or len(test), low=1, high=len(test))]
    return {
        "train": (source.train_images[train], source.train_labels[train]),
        "val": (source.train_images[rows[:num_val]], source.train_labels[rows[:num_val]]),
        "test": (source.test_images[test], source.test_labels[test]),
    }


def _order(num_rows: int) -> Tensor:
    return torch.randperm(num_rows, generator=torch.Generator().manual_seed(0))


def _without(rows: Tensor, images: Tensor, others: Tensor) -> Tensor:
    """The `rows` of `images` that are not among the `others`."""
    known = {other.numpy().tobytes() for other in others}
    return torch.tensor([i for i in rows.tolist() if images[i].numpy().tobytes() not in known])


def prepare_images(
    parts: Mapping[str, tuple[Tensor, Tensor]],
    size: int | None,
    channels: int | None,
    normalisation: Normalisation | None,
) -> tuple[dict[str, tuple[Tensor, Tensor]], Normalisation]:
    """What `split_images` gave, as a model wants it, and how it was normalised.

    Args:
        parts: uint8 images and labels of `train` and other splits.
        size: pixels a side; None: as they are.
        channels: 1 or 3, for which grey images are repeated; None: as they are.
        normalisation: None: that of the training rows.

    Raises:
        ValueError: `channels` is 1 for images in colour.
    """
    scaled = {split: resize(images, size) for split, (images, _) in parts.items()}
    normalise = normalisation or Normalisation.of(scaled["train"])
    made = {
        split: (with_channels(normalise(scaled[split]), channels), labels)
        for split, (_, labels) in parts.items()
    }
    return made, normalise
