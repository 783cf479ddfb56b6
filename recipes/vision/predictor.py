"""A trained model that classifies picture files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from recipes._common.config import ModelConfig
from recipes._common.heads import ClassPredictor
from recipes._common.saved import read_card
from recipes.vision.backbones import Backbone
from recipes.vision.pictures import open_picture
from recipes.vision.prepare import Normalisation, resize, with_channels
from recipes.vision.tasks import HEADS, WEIGHTS, ImageTasks


def load_predictor(folder: Path) -> ClassPredictor:
    """The model that a run of the image recipe left.

    Pictures are cut to squares, resized, and made grey if the training images were. The folder need
    not be trusted: weights are read from safetensors, the model is one of timm's or torchvision's
    by name, and tensors of another shape are refused.

    Raises:
        FileNotFoundError: there is no card, or no weights.
        RuntimeError: the weights are not those of the card's model.
        ValueError: the card names no model of the libraries.
    """
    card = read_card(folder)
    channels, size, _ = card["shape"]
    normalise = Normalisation(**{key: tuple(v) for key, v in card["normalisation"].items()})
    counts = {task: len(names) for task, names in card["tasks"].items()}
    module = ImageTasks(
        ModelConfig(lr=1.0), Backbone(**card["backbone"]), counts, (channels, size, size)
    )
    module.encoder.load_state_dict(load_file(folder / WEIGHTS))
    module.heads.load_state_dict(load_file(folder / HEADS))

    def prepare(paths: Sequence[str]) -> dict[str, Tensor]:
        pixels = [open_picture(path, size, grey=card["is_grey"]) for path in paths]
        return {"images": with_channels(normalise(resize(torch.stack(pixels), size)), channels)}

    return ClassPredictor(module, card["tasks"], prepare)
