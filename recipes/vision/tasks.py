"""Several questions about images on one backbone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from recipes._common.config import ModelConfig
from recipes._common.heads import HeadsModule
from recipes._common.saved import write_card
from recipes.vision.backbones import Backbone, feature_width
from recipes.vision.config import EfficientNetConfig, TimmConfig, TorchvisionConfig, ViTConfig
from recipes.vision.models import load_packaged_lite0, vit_backbone
from recipes.vision.tasks_data import ImageTasksData

WEIGHTS, HEADS = "backbone.safetensors", "heads.safetensors"
"""Files of a saved model."""


class ImageTasks(HeadsModule):
    """A backbone and one linear head per task on its pooled features.

    Weights and images lie channels last in memory, in which convolutions are faster (a step of
    EfficientNet-lite0 on one CPU thread: 0.18 s instead of 0.44, 32 images of 48 × 48).

    Args:
        config: learning rate and weight decay.
        backbone: which it is.
        class_counts: task → number of classes.
        shape: C, H, W of the images.
        built: the backbone itself, if it has weights already; None: fresh.
        data: what it is trained on, so that `save_pretrained` can say so.

    Raises:
        ValueError: a number is outside its range.
    """

    def __init__(
        self,
        config: ModelConfig,
        backbone: Backbone,
        class_counts: Mapping[str, int],
        shape: tuple[int, int, int],
        *,
        built: nn.Module | None = None,
        data: ImageTasksData | None = None,
    ) -> None:
        built = backbone.build() if built is None else built
        built = built.to(memory_format=torch.channels_last)
        super().__init__(config, built, feature_width(built, shape), class_counts)
        self.headline = dict.fromkeys(class_counts, "accuracy")
        self._backbone = backbone
        self._data = data

    def features(self, **inputs: Tensor) -> Tensor:
        """Pooled features (B, D) of `images` (B, C, H, W)."""
        images = inputs["images"].contiguous(memory_format=torch.channels_last)
        features: Tensor = self.encoder(images)
        return features

    def save_pretrained(self, folder: Path) -> None:
        """Write the backbone for its library, the heads, and with `data` the card."""
        folder.mkdir(parents=True, exist_ok=True)
        save_file(_contiguous(self.encoder), folder / WEIGHTS)
        save_file(_contiguous(self.heads), folder / HEADS)
        if self._data is not None:
            data = self._data
            facts = {
                "tasks": data.class_names,
                "backbone": asdict(self._backbone),
                "shape": data.shape,
                "is_grey": data.is_grey,
                "normalisation": asdict(data.normalisation),
            }
            write_card(folder, "image", facts)


def _contiguous(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.contiguous() for name, value in module.state_dict().items()}


def _make(
    config: ModelConfig, data: ImageTasksData, backbone: Backbone, built: nn.Module
) -> ImageTasks:
    return ImageTasks(config, backbone, data.class_counts, data.shape, built=built, data=data)


def make_vit(config: ViTConfig, data: ImageTasksData) -> ImageTasks:
    """A small vision transformer from scratch.

    Raises:
        ValueError: a number is outside its range, or not the multiple that it must be.
    """
    channels, size, _ = data.shape
    patch = max(1, size // 4) if config.patch_size is None else config.patch_size
    backbone = vit_backbone(size, patch, config.width, config.depth, config.heads, channels)
    return _make(config, data, backbone, backbone.build())


def make_efficientnet(config: EfficientNetConfig, data: ImageTasksData) -> ImageTasks:
    """EfficientNet-lite0, by default with the packaged ImageNet weights.

    Raises:
        FetchError: the weights cannot be had.
        ValueError: the images have not 3 channels.
    """
    backbone = Backbone(library="timm", name="tf_efficientnet_lite0")
    _check_colour(data)
    built = backbone.build()
    if config.pretrained:
        load_packaged_lite0(built)
    return _make(config, data, backbone, built)


def make_timm(config: TimmConfig, data: ImageTasksData) -> ImageTasks:
    """Any of timm's models; those that want a fixed size of image want it in `data.size`.

    Raises:
        FetchError: the weights cannot be had.
        ValueError: there is no such model.
    """
    backbone = Backbone(library="timm", name=config.name, arguments={"in_chans": data.shape[0]})
    return _make(config, data, backbone, backbone.build(pretrained=config.pretrained))


def make_torchvision(config: TorchvisionConfig, data: ImageTasksData) -> ImageTasks:
    """Any of torchvision's classifiers.

    Raises:
        FetchError: the weights cannot be had.
        ValueError: there is no such model, or the images have not 3 channels.
    """
    backbone = Backbone(library="torchvision", name=config.name)
    _check_colour(data)
    return _make(config, data, backbone, backbone.build(pretrained=config.pretrained))


def _check_colour(data: ImageTasksData) -> None:
    if data.shape[0] != 3:
        msg = f"Expected `data.channels` to be 3 for this model, but got {data.shape[0]}."
        raise ValueError(msg)
