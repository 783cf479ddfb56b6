"""Image models without their heads, by name, so that saved weights find their model again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import timm
import torch
import torchvision
from torch import nn

from lightning_attnbal.core import check_choice
from recipes._fetch import FetchError

_ARGUMENTS = {  # of timm's, and their types: a saved model's card may set no other
    "img_size": int,
    "patch_size": int,
    "in_chans": int,
    "embed_dim": int,
    "depth": int,
    "num_heads": int,
    "class_token": bool,
    "global_pool": str,
}
_NOT_PLAIN = ["googlenet", "inception*"]  # they return more than logits in training


@dataclass(frozen=True, slots=True, kw_only=True)
class Backbone:
    """A model of timm or torchvision, up to the features that its head reads.

    Args:
        library: that has it.
        name: one of the library's classifiers.
        arguments: of `timm.create_model`: sizes, channels and pooling.

    Raises:
        ValueError: there is no such model or argument.

    Example:
        >>> Backbone(library="timm", name="resnet10t").build()(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 512])
        >>> Backbone(library="torchvision", name="mystery")
        Traceback (most recent call last):
        ValueError: Expected `name` to be one of torchvision's classifiers, but got 'mystery'.
    """

    library: Literal["timm", "torchvision"]
    name: str
    arguments: Mapping[str, int | bool | str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_choice("library", self.library, ("timm", "torchvision"))
        if self.name not in self._names():
            msg = (
                f"Expected `name` to be one of {self.library}'s classifiers, but got {self.name!r}."
            )
            raise ValueError(msg)
        allowed = _ARGUMENTS if self.library == "timm" else {}
        for key, value in self.arguments.items():
            if type(value) is not allowed.get(key):
                known = ", ".join(f"{name}: {kind.__name__}" for name, kind in allowed.items())
                msg = f"Expected `arguments` to be among {known or '{}'}, but got {key}={value!r}."
                raise ValueError(msg)

    def _names(self) -> list[str]:
        if self.library == "timm":
            return list(timm.list_models())
        return list(torchvision.models.list_models(torchvision.models, exclude=_NOT_PLAIN))

    def build(self, *, pretrained: bool = False) -> nn.Module:
        """Features (B, D) of images (B, C, H, W).

        Args:
            pretrained: whether to start from the library's weights, which are downloaded once.

        Raises:
            FetchError: the weights cannot be downloaded, or there are none.
            ValueError: the model has no last linear layer that is its head.
        """
        try:
            return (
                self._timm(pretrained) if self.library == "timm" else self._torchvision(pretrained)
            )
        except OSError as error:
            raise self._unreachable(error) from error

    def _timm(self, pretrained: bool) -> nn.Module:
        arguments: dict[str, Any] = dict(self.arguments)
        if pretrained and not timm.is_model_pretrained(self.name):
            raise self._unreachable("it has none")
        return timm.create_model(self.name, pretrained=pretrained, num_classes=0, **arguments)

    def _torchvision(self, pretrained: bool) -> nn.Module:
        weights = "DEFAULT" if pretrained else None
        model: nn.Module = torchvision.models.get_model(self.name, weights=weights)
        linear = [name for name, part in model.named_modules() if isinstance(part, nn.Linear)]
        if not linear:
            msg = f"Expected `name` to be a model that ends in a linear layer, not {self.name!r}."
            raise ValueError(msg)
        model.set_submodule(linear[-1], nn.Identity())
        return model

    def _unreachable(self, reason: object) -> FetchError:
        msg = (
            f"Could not get pretrained weights of {self.name!r} from {self.library} ({reason}). "
            "Train it from scratch with `model.pretrained=false`, or use `model=image_efficientnet`"
            ", whose weights come in a package."
        )
        return FetchError(msg)


def feature_width(backbone: nn.Module, shape: tuple[int, int, int]) -> int:
    """Numbers D that a backbone gives for an image (C, H, W); its state is left as it is."""
    was_training = backbone.training
    with torch.no_grad():
        width = backbone.eval()(torch.zeros(1, *shape)).shape[-1]
    backbone.train(was_training)
    return int(width)
