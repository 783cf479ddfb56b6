"""What the tests of unit discovery share."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import nn

from lightning_attnbal.core import Unit
from lightning_attnbal.measure._discover import discover_units

EXPECTED = {
    "bert": "embeddings encoder.layer.0 encoder.layer.1 encoder.layer.2 head",
    "distilbert": "embeddings transformer.layer.0 transformer.layer.1 transformer.layer.2 head",
    "gpt2": "embeddings h.0 h.1 h.2 head",
    "llama": "embeddings layers.0 layers.1 layers.2 head",
    "t5": (
        "embeddings encoder.block.0 encoder.block.1 encoder.final_layer_norm "
        "decoder.block.0 decoder.block.1 head"
    ),
    "marian": (
        "embeddings encoder.layers.0 encoder.layers.1 decoder.embed_positions "
        "decoder.layers.0 decoder.layers.1"
    ),
    "bart": (
        "embeddings encoder.layers.0 encoder.layers.1 "
        "decoder.embed_positions+layernorm_embedding decoder.layers.0 decoder.layers.1"
    ),
    "hf_vit": "embeddings layers.0 layers.1 layers.2 head",
    "timm_vit": "embeddings blocks.0 blocks.1 blocks.2 head",
    "timm_convnext": (
        "stem stages.0.blocks.0 stages.1.downsample stages.1.blocks.0 stages.2.downsample "
        "stages.2.blocks.0 stages.2.blocks.1 stages.3.downsample stages.3.blocks.0 head"
    ),
    "timm_swin": (
        "embeddings layers.0.blocks.0 layers.0.blocks.1 layers.1.downsample "
        "layers.1.blocks.0 layers.1.blocks.1 head"
    ),
    "timm_resnet": "stem layer1.0 layer2.0 layer2.1 layer3.0 layer4.0 head",
    "tv_resnet18": (
        "stem layer1.0 layer1.1 layer2.0 layer2.1 layer3.0 layer3.1 layer4.0 layer4.1 head"
    ),
    "tv_vit": (
        "embeddings encoder.layers.encoder_layer_0 encoder.layers.encoder_layer_1 "
        "encoder.layers.encoder_layer_2 head"
    ),
    "tv_swin": "stem features.1.0 features.1.1 features.2 features.3.0 features.3.1 head",
    "nn_transformer_encoder": "layers.0 layers.1 layers.2",
    "nn_transformer_decoder": "layers.0 layers.1 layers.2",
    "nn_transformer": (
        "encoder.layers.0 encoder.layers.1 encoder.norm decoder.layers.0 decoder.layers.1 head"
    ),
    "lstm_attention": "embeddings recurrent.0 recurrent.1 attention head",
    "gru_attention": "embeddings recurrent.0 attention head",
    "mlp_sequential": "0 2 4 6 head",
    "cnn_sequential": "0 3 6 head",
}


def mlp(*widths: int) -> nn.Sequential:
    return nn.Sequential(*(nn.Linear(a, b) for a, b in pairwise(widths)))


def names_of(model: nn.Module, units: object = None) -> list[str]:
    return [unit.name for unit in discover_units(model, units)]


def check_partition(model: nn.Module, units: Sequence[Unit]) -> None:
    """Every parameter once, modules real, disjoint and unnested, indices and names consistent."""
    owned = [name for unit in units for name in unit.parameters]
    assert sorted(owned) == sorted(name for name, _ in model.named_parameters())
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    for unit in units:
        assert unit.num_parameters == sum(sizes[name] for name in unit.parameters)
    modules = [name for unit in units for name in unit.modules]
    known = dict(model.named_modules())
    assert len(set(modules)) == len(modules)
    assert known.keys() >= set(modules)
    nested = [(a, b) for a in modules for b in modules if b.startswith(f"{a}.")]
    assert nested == []
    assert [unit.index for unit in units] == list(range(len(units)))
    assert len({unit.name for unit in units}) == len(units)
