"""Batches of several questions about images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from sklearn.dummy import DummyClassifier  # type: ignore[import-untyped]  # it ships no types
from sklearn.linear_model import LogisticRegression  # type: ignore[import-untyped]
from torch import Tensor
from torch.utils.data import Dataset

from lightning_attnbal.apply.cache import FixedViews
from lightning_attnbal.core import check_integer
from recipes._common.config import Source
from recipes._common.data import Split, TasksData
from recipes._common.heads import fit_and_score, share_inputs
from recipes._fetch import FetchError, cache_folder
from recipes.vision.config import Augment, ImageDataConfig, Scale
from recipes.vision.groups import CIFAR10, CIFAR100, DIGITS, FASHION, group_of_class
from recipes.vision.models import EFFICIENTNET_LITE0
from recipes.vision.pictures import load_folder
from recipes.vision.prepare import (
    IMAGENET,
    prepare_images,
    shift,
    shift_and_mirror,
    split_images,
)
from recipes.vision.sources import (
    ImageSet,
    load_cifar10,
    load_cifar100,
    load_digits_images,
    load_fashion_mnist,
    make_synthetic_images,
)

ROTATIONS = ("0°", "90°", "180°", "270°")
"""Classes of the task `rotation`, counterclockwise."""
_SCALES = {Scale.rows: None, Scale.half: EFFICIENTNET_LITE0, Scale.imagenet: IMAGENET}
_AUGMENT: dict[Augment, Callable[[Tensor], Tensor] | None] = {
    Augment.none: None,
    Augment.shift: shift,
    Augment.mirror: shift_and_mirror,
}
_STRIPES = {"flat": ("direction 0", "direction 1"), "steep": ("direction 2", "direction 3")}

Groups = Mapping[str, Sequence[str]]


class TaskImages(Dataset[dict[str, Tensor]]):
    """Images with the labels of one task: rows of `images` (C, H, W) and `labels` ().

    Args:
        images: (N, C, H, W).
        labels: (N,) class indices; quarter turns where `is_turned`.
        is_turned: whether each image is turned by its label.
        augment: applied to an image each time it is asked for, before it is turned: a mirrored
            image would have turned the other way.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        *,
        is_turned: bool = False,
        augment: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self._images = images
        self.labels = labels
        self._is_turned = is_turned
        self._augment = augment

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        image, label = self._images[index], self.labels[index]
        image = image if self._augment is None else self._augment(image)
        turns = int(label) if self._is_turned else 0
        return {"images": image.rot90(turns, (1, 2)), "labels": label}


class ImageTasksData(TasksData):
    """Images with labels of one to three tasks.

    `class` is what the set asks for, `group` a coarser division of it, and `rotation` by how many
    quarter turns an image was turned, the i-th of a split (in its fixed random order) by i mod 4.
    A batch holds `images` (B, C, H, W) and `labels` (B,).

    Args:
        config: what to load and how to batch it.

    Raises:
        ValueError: a number or name is outside its range; in `setup`: there are too few rows, or
            the set has no groups.
        FetchError: in `setup`: the images cannot be had.

    Attributes:
        class_names: task → names of its classes, after `setup`.
        normalisation: of the images, after `setup`.
        shape: C, H, W of the images as a model gets them, after `setup`.
        is_grey: whether the images had one channel, after `setup`.
    """

    known_tasks = ("class", "group", "rotation")

    def __init__(self, config: ImageDataConfig) -> None:
        super().__init__(config)
        for name in ("size", "views"):
            if getattr(config, name) is not None:
                check_integer(f"data.{name}", getattr(config, name), low=1)
        if config.channels not in (None, 1, 3):
            msg = f"Expected `data.channels` to be 1, 3 or null, but got {config.channels}."
            raise ValueError(msg)
        self._images_config = config
        self.class_names: dict[str, tuple[str, ...]] = {}

    @property
    def class_counts(self) -> dict[str, int]:
        """Task → number of classes, after `setup`."""
        return {task: len(names) for task, names in self.class_names.items()}

    def _prepare(self) -> None:
        config = self._images_config
        source, groups = load_images(config)
        if source.shape[1] != source.shape[2] and config.size is None:
            msg = f"Expected `data.size` for images that are no squares, {source.shape}."
            raise ValueError(msg)
        self._parts = split_images(source, config.num_train, config.num_val, config.num_test)
        self._made, self.normalisation = prepare_images(
            self._parts, config.size, config.channels, _SCALES[config.scale]
        )
        self._groups = self._grouped(source.class_names, config.groups or groups)
        names = {"class": source.class_names, "group": tuple(config.groups or groups)}
        self.class_names = {task: (names | {"rotation": ROTATIONS})[task] for task in self.tasks}
        channels, height, width = self._made["train"][0].shape[1:]
        self.shape = (channels, height, width)
        self.is_grey = source.shape[0] == 1
        self.same_samples = "rotation" not in self.tasks

    def _grouped(self, class_names: Sequence[str], groups: Groups) -> Tensor | None:
        if "group" not in self.tasks:
            return None
        if not groups:
            msg = (
                "Expected `data.tasks` to be among 'class', 'rotation' for images without groups; "
                "or say which there are: `data.groups={animal:[cat,dog],thing:[car]}`."
            )
            raise ValueError(msg)
        return group_of_class(class_names, groups)

    def _labels(self, task: str, split: str) -> Tensor:
        labels = self._parts[split][1]
        if task == "rotation":
            return torch.arange(len(labels)) % len(ROTATIONS)
        return labels if self._groups is None or task == "class" else self._groups[labels]

    def rows(self, task: str, split: Split) -> Dataset[Any]:
        """Images and labels of a task."""
        config = self._images_config
        augment = _AUGMENT[config.augment] if split == "train" else None
        rows = TaskImages(
            self._made[split][0],
            self._labels(task, split),
            is_turned=task == "rotation",
            augment=augment,
        )
        return rows if augment is None or config.views is None else FixedViews(rows, config.views)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:  # noqa: ARG002
        """Let images that several tasks share be encoded once (Lightning's hook)."""
        return share_inputs(batch)

    def baselines(self) -> dict[str, dict[str, float]]:
        """The most frequent class; logistic regression on pixels."""
        pixels = LogisticRegression(max_iter=2000, tol=1e-3, C=0.1)
        models = {"majority": DummyClassifier(), "pixels": pixels}
        return {name: self._score(model) for name, model in models.items()}

    def _score(self, model: Any) -> dict[str, float]:
        scores = {}
        for task, num_classes in self.class_counts.items():
            train, test = (self._pixels(task, split) for split in ("train", "test"))
            for name, score in fit_and_score(model, train, test, num_classes).items():
                scores[f"{task}/{name}"] = score
        return scores

    def _pixels(self, task: str, split: str) -> tuple[Any, Any]:
        """Brightness in [0, 1] of each pixel, and labels."""
        labels = self._labels(task, split)
        rows = TaskImages(self._parts[split][0], labels, is_turned=task == "rotation")
        pixels = torch.stack([rows[i]["images"] for i in range(len(rows))]).flatten(1)
        return pixels.float().div(255).numpy(), labels.numpy()


def load_images(config: ImageDataConfig) -> tuple[ImageSet, Groups]:
    """The images that the configuration asks for, and the groups that come with them.

    Raises:
        FetchError: they cannot be had.
        ValueError: there is no such set, or a key is missing.
    """
    if config.source is Source.embedded:
        return load_digits_images(), DIGITS
    if config.source is Source.synthetic:
        return make_synthetic_images(256, 128), _STRIPES
    if config.source is Source.files:
        if config.size is None:
            msg = "Expected `data.size` (pixels a side) for pictures of one's own, but got null."
            raise ValueError(msg)
        return load_folder(config.path or "", config.size), {}
    if config.name not in _HUB:
        known = ", ".join(map(repr, _HUB))
        msg = f"Expected `data.name` to be one of {known}, but got {config.name!r}."
        raise ValueError(msg)
    load, groups = _HUB[config.name]
    return load(), groups


def _fashion() -> ImageSet:
    try:
        return load_fashion_mnist()
    except FetchError:  # neither Debian's package nor an earlier download
        return load_fashion_mnist(download=True)


_HUB: dict[str, tuple[Callable[[], ImageSet], Groups]] = {
    "fashion-mnist": (_fashion, FASHION),
    "cifar10": (lambda: load_cifar10(cache_folder(), download=True), CIFAR10),
    "cifar100": (lambda: load_cifar100(cache_folder(), download=True), CIFAR100),
}
