"""Published architectures of real size, on the meta device: how many blocks are found."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lightning_attnbal.core import UnitKind
from lightning_attnbal.measure._discover import discover_units
from tests.unit.measure.discovery import check_partition

TIMM = {
    "efficientnet_lite0": 15,
    "mobilenetv3_large_100": 14,
    "regnety_002": 13,
    "resnet50d": 16,
    "swinv2_tiny_window8_256": 12,
    "vit_small_patch16_dinov3": 12,
}
TORCHVISION = {
    "convnext_tiny": 18,
    "densenet121": 4,
    "efficientnet_b0": 16,
    "mobilenet_v2": 17,
    "resnext50_32x4d": 16,
    "squeezenet1_0": 8,
    "vgg11_bn": 10,
}
HUGGING_FACE = {
    "Albert": ("AlbertForSequenceClassification", {}, 1),
    "DebertaV2": ("DebertaV2ForSequenceClassification", {"num_hidden_layers": 3}, 3),
    "GPTNeoX": ("GPTNeoXForCausalLM", {"num_hidden_layers": 3}, 3),
    "ModernBert": ("ModernBertForSequenceClassification", {"num_hidden_layers": 3}, 3),
    "Roberta": ("RobertaForMaskedLM", {"num_hidden_layers": 3}, 3),
    "Whisper": ("WhisperForConditionalGeneration", {"encoder_layers": 2, "decoder_layers": 3}, 5),
}


def _check(model: nn.Module, num_blocks: int) -> None:
    units = discover_units(model)
    check_partition(model, units)
    assert sum(unit.kind is UnitKind.BLOCK for unit in units) == num_blocks
    assert units[-1].kind is UnitKind.HEAD


@pytest.mark.parametrize("name", TIMM)
def test_timm(name):
    import timm

    with torch.device("meta"):
        _check(timm.create_model(name, pretrained=False), TIMM[name])


@pytest.mark.parametrize("name", TORCHVISION)
def test_torchvision(name):
    import torchvision

    with torch.device("meta"):
        _check(torchvision.models.get_model(name, weights=None), TORCHVISION[name])


@pytest.mark.parametrize("name", HUGGING_FACE)
def test_hugging_face(name):
    import transformers

    model, options, num_blocks = HUGGING_FACE[name]
    config = getattr(transformers, f"{name}Config")(**options)
    with torch.device("meta"):
        _check(getattr(transformers, model)(config), num_blocks)
