"""The schema of the image recipe."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING

from recipes._common.config import DataConfig, ModelConfig


class Scale(StrEnum):
    """How brightness is normalised."""

    rows = "rows"
    """Mean 0 and deviation 1 over the training rows."""
    half = "half"
    """(x - 0.5) / 0.5, for the packaged EfficientNet-lite0."""
    imagenet = "imagenet"
    """Mean and deviation of ImageNet, for most pretrained weights."""


class Augment(StrEnum):
    """What is done to training images at random."""

    none = "none"
    shift = "shift"
    mirror = "mirror"
    """Shifted and mirrored; not for digits or letters."""


@dataclass
class ImageDataConfig(DataConfig):
    """Schema of the recipe's `data`.

    Args:
        size: pixels a side to which images are resized, in [1, inf); null: as they are.
        channels: that the model wants, 1 or 3; null: as many as the images have.
        scale: how brightness is normalised.
        augment: what is done to training images at random.
        views: versions of each training image that `augment` makes, in [1, inf), so that what is
            computed from them can be cached; null: no end of them.
        groups: name of a group → names of its classes, for the task `group`; {}: those that come
            with the set.
    """

    _target_: str = "recipes.vision.ImageTasksData"
    size: int | None = None
    channels: int | None = None
    scale: Scale = Scale.rows
    augment: Augment = Augment.none
    views: int | None = None
    groups: dict[str, list[str]] = field(default_factory=dict)


@dataclass
class ViTConfig(ModelConfig):
    """Schema of `model=image_vit`, a vision transformer from scratch.

    Args:
        patch_size: pixels a side; null: a quarter of the image's, so 16 patches.
        width: numbers per patch, a multiple of `heads`.
        depth: blocks, in [1, inf).
        heads: attention heads per block, in [1, inf).
    """

    _target_: str = "recipes.vision.make_vit"
    patch_size: int | None = None
    width: int = 128
    depth: int = 6
    heads: int = 4


@dataclass
class EfficientNetConfig(ModelConfig):
    """Schema of `model=image_efficientnet`, EfficientNet-lite0 from a package.

    Args:
        pretrained: whether it starts from the packaged ImageNet weights.
    """

    _target_: str = "recipes.vision.make_efficientnet"
    pretrained: bool = True


@dataclass
class TimmConfig(ModelConfig):
    """Schema of `model=image_timm`, any of timm's models.

    Args:
        name: one of `timm.list_models()`.
        pretrained: whether it starts from the weights on the hub.
    """

    _target_: str = "recipes.vision.make_timm"
    name: str = MISSING
    pretrained: bool = False


@dataclass
class TorchvisionConfig(ModelConfig):
    """Schema of `model=image_torchvision`, any of torchvision's classifiers.

    Args:
        name: one of `torchvision.models.list_models(module=torchvision.models)`.
        pretrained: whether it starts from the default weights.
    """

    _target_: str = "recipes.vision.make_torchvision"
    name: str = MISSING
    pretrained: bool = False


_MODELS = {
    "image_vit": ViTConfig,
    "image_efficientnet": EfficientNetConfig,
    "image_timm": TimmConfig,
    "image_torchvision": TorchvisionConfig,
}
TARGETS: tuple[str, ...] = (
    "recipes.vision.ImageTasksData",
    "recipes.vision.make_vit",
    "recipes.vision.make_efficientnet",
    "recipes.vision.make_timm",
    "recipes.vision.make_torchvision",
)
"""What `_target_` may name here."""


def store(configs: ConfigStore) -> None:
    """Tell Hydra the schemas."""
    configs.store(name="image_data", node=ImageDataConfig)
    for name, node in _MODELS.items():
        configs.store(group="model", name=f"{name}_schema", node=node)
