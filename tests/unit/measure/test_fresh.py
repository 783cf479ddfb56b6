"""Which units were never trained, told from their weights alone."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from lightning_attnbal.core import Unit, UnitKind
from lightning_attnbal.measure import discover_units, fresh_units
from recipes.text import TextClassifier, packaged_encoder
from tests.families import FAMILIES

# no biases, and embeddings drawn from a normal: they do not say
SILENT = {"embeddings", "decoder.embed_positions"}


def names(units) -> set[str]:
    return {unit.name for unit in units}


def train(model: nn.Module, family: str, lr: float = 1e-3) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr)
    for _ in range(3):
        optimizer.zero_grad()
        FAMILIES[family].loss(model, FAMILIES[family].batch()).backward()
        optimizer.step()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_from_scratch_is_fresh(family):
    model = FAMILIES[family].build()
    units = discover_units(model)
    assert names(units) - fresh_units(model, units) <= SILENT


@pytest.mark.parametrize(
    "family", ["bert", "llama", "hf_vit", "timm_vit", "tv_resnet18", "tv_vit", "nn_transformer"]
)
def test_a_few_steps_of_training_show(family):
    model = FAMILIES[family].build()
    units = discover_units(model)
    train(model, family)
    assert fresh_units(model, units) == frozenset()


@pytest.mark.parametrize(
    ("family", "classifier"),
    [
        ("bert", "classifier"),
        ("distilbert", "classifier"),
        ("hf_vit", "classifier"),
        ("timm_vit", "head"),
        ("timm_resnet", "fc"),
        ("tv_resnet18", "fc"),
        ("tv_vit", "heads.head"),
        ("tv_swin", "head"),
    ],
)
def test_loaded_weights_show_and_a_new_classifier_makes_the_head_fresh(family, classifier):
    donor = FAMILIES[family].build()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in donor.parameters():
            parameter += 0.02 * torch.randn(parameter.shape, generator=generator)
    model = FAMILIES[family].build()
    new = copy.deepcopy(model.get_submodule(classifier))
    model.load_state_dict(donor.state_dict())
    assert fresh_units(model, discover_units(model)) == frozenset()
    model.set_submodule(classifier, new)
    assert fresh_units(model, discover_units(model)) == {"head"}


def test_only_the_head_of_a_packaged_encoder_is_new(capfd):
    model = TextClassifier(packaged_encoder(), num_classes=3)
    units = discover_units(model)
    assert len(units) == 8
    assert fresh_units(model, units) == {"head"}


@pytest.mark.parametrize("kind", [nn.Linear, nn.Conv1d, nn.LSTM, nn.LayerNorm])
def test_moving_one_number_far_is_enough(kind):
    sizes = {nn.Conv1d: (8, 8, 3), nn.LayerNorm: (16,)}
    model = kind(*sizes.get(kind, (16, 16)))
    parameters = tuple(dict(model.named_parameters()))
    unit = Unit("all", 0, UnitKind.BLOCK, ("",), parameters, 1)
    assert fresh_units(model, [unit]) == {"all"}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.view(-1)[0] += 3.0
    assert fresh_units(model, [unit]) == frozenset()


def test_one_trained_module_makes_its_unit_trained():
    model = nn.Sequential(nn.Linear(16, 16), nn.LayerNorm(16), nn.Linear(16, 16))
    unit = Unit("all", 0, UnitKind.BLOCK, ("",), tuple(dict(model.named_parameters())), 1)
    assert fresh_units(model, [unit]) == {"all"}
    with torch.no_grad():
        model[1].bias.normal_()
    assert fresh_units(model, [unit]) == frozenset()


def test_what_says_nothing_counts_as_trained():
    model = nn.Embedding(20, 8)
    unit = Unit("embeddings", 0, UnitKind.EMBEDDING, ("",), ("weight",), 160)
    assert fresh_units(model, [unit]) == frozenset()


def test_weights_are_only_read():
    model = FAMILIES["timm_vit"].build()
    before = copy.deepcopy(model.state_dict())
    fresh_units(model, discover_units(model))
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
