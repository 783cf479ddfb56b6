"""Picture files of one's own."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image, ImageOps
from rich.progress import track
from torch import Tensor
from torchvision.datasets import ImageFolder
from torchvision.transforms.functional import pil_to_tensor

from recipes.vision.sources import ImageSet


def load_folder(folder: str | Path, size: int) -> ImageSet:
    """Pictures of one's own, in colour, a folder per class, below `train/` and `test/` if there.

    Without these two, every fifth picture of the sorted files is for testing. Pictures are cut to
    squares around their middle, resized, and kept in memory: 3 · `size`² bytes each.

    Args:
        folder: as `torchvision.datasets.ImageFolder` has it.
        size: pixels a side, in [1, inf).

    Raises:
        ValueError: the folder holds no pictures, `train/` and `test/` differ in their classes, or
            a file is no picture.
    """
    root = Path(folder)
    if (root / "train").is_dir() and (root / "test").is_dir():
        (images, labels, names), (test, test_labels, others) = (
            _read_folder(root / part, size) for part in ("train", "test")
        )
        if names != others:
            msg = f"Expected {root}/test to have the classes of train, {names}, but got {others}."
            raise ValueError(msg)
        return ImageSet(images, labels, test, test_labels, names)
    images, labels, names = _read_folder(root, size)
    is_test = torch.arange(len(labels)) % 5 == 4
    return ImageSet(images[~is_test], labels[~is_test], images[is_test], labels[is_test], names)


def _read_folder(folder: Path, size: int) -> tuple[Tensor, Tensor, tuple[str, ...]]:
    try:
        files = ImageFolder(str(folder), loader=lambda path: open_picture(path, size, grey=False))
    except FileNotFoundError as error:
        msg = f"Expected `data.path` to hold a folder of pictures per class, but {error}"
        raise ValueError(msg) from error
    pairs = list(track(files, f"Reading {folder.name}", total=len(files), transient=True))
    images = torch.stack([image for image, _ in pairs])
    return images, torch.tensor([label for _, label in pairs]), tuple(files.classes)


def open_picture(path: str | Path, size: int, *, grey: bool) -> Tensor:
    """The middle square of a picture, uint8, (1, `size`, `size`) or (3, `size`, `size`).

    Raises:
        ValueError: the file is no picture, or not there.
    """
    try:
        with Image.open(path) as opened:
            picture = opened.convert("L" if grey else "RGB")
    except OSError as error:
        msg = f"Expected {path} to be a picture, but reading it failed: {error}."
        raise ValueError(msg) from error
    square = ImageOps.fit(picture, (size, size), Image.Resampling.BILINEAR)
    pixels: Tensor = pil_to_tensor(square)
    return pixels
