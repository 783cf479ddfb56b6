"""Discovery of units: what is found in each family, tied weights, wrappers, user's own units."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lightning_attnbal.core import UnitKind
from lightning_attnbal.measure._discover import discover_units, order_units
from tests.families import FAMILIES, forward
from tests.unit.measure.discovery import EXPECTED, check_partition, mlp, names_of

NOT_BLOCKS = {
    "t5": {"encoder.final_layer_norm": "other"},
    "marian": {"decoder.embed_positions": "embedding"},
    "bart": {"decoder.embed_positions+layernorm_embedding": "embedding"},
    "timm_convnext": {f"stages.{i}.downsample": "other" for i in (1, 2, 3)},
    "timm_swin": {"layers.1.downsample": "other"},
    "tv_swin": {"features.2": "other"},
    "nn_transformer": {"encoder.norm": "other"},
}
ROLES = {"embeddings": "embedding", "stem": "embedding", "head": "head"}


class Wrapper(nn.Module):
    """A user's module: the head is registered first, the backbone in the middle, a metric last."""

    def __init__(self, backbone: nn.Module):
        super().__init__()
        self.head = nn.Linear(5, 2)
        self.model = backbone
        self.metric = nn.Identity()


class Siamese(nn.Module):
    def __init__(self):
        super().__init__()
        self.query, self.document = FAMILIES["bert"].build().bert, FAMILIES["bert"].build().bert
        self.logit_scale = nn.Parameter(torch.ones(()))


class MultiTask(nn.Module):
    """Heads of several tasks that repeat as often as the blocks do."""

    def __init__(self):
        super().__init__()
        self.heads = nn.ModuleDict({name: mlp(8, 8, 8) for name in ("a", "b", "c")})
        self.blocks = nn.ModuleList(mlp(16, 16, 16) for _ in range(3))


class Attributes(nn.Module):
    """Blocks as attributes and not in a list, no two of equal shape."""

    def __init__(self):
        super().__init__()
        self.inlet = nn.Conv2d(3, 4, 3)
        self.down1, self.down2, self.down3 = Pair(4, 8), Pair(8, 16), Pair(16, 32)
        self.fc = nn.Linear(32, 2)


class Pair(nn.Sequential):
    def __init__(self, channels_in: int, channels_out: int):
        super().__init__()
        self.first = nn.Conv2d(channels_in, channels_out, 3)
        self.second = nn.Conv2d(channels_out, channels_out, 3)


def _calls(model: nn.Module, batch: dict) -> list[str]:
    """Qualified names of all modules in the order in which a forward pass enters them."""
    calls: list[str] = []
    hooks = [
        module.register_forward_pre_hook(lambda _module, _args, name=name: calls.append(name))
        for name, module in model.named_modules()
    ]
    forward(model, batch)
    for hook in hooks:
        hook.remove()
    return calls


@pytest.fixture(scope="module")
def models() -> dict[str, nn.Module]:
    return {name: family.build() for name, family in FAMILIES.items()}


@pytest.mark.parametrize("family", FAMILIES)
class TestFamilies:
    def test_units_partition_the_parameters(self, family, models):
        check_partition(models[family], discover_units(models[family]))

    def testnames_of(self, family, models):
        assert names_of(models[family]) == EXPECTED[family].split()

    def test_kinds(self, family, models):
        roles = {**ROLES, **NOT_BLOCKS.get(family, {})}
        for unit in discover_units(models[family]):
            assert unit.kind.value == roles.get(unit.name, "block"), unit.name

    def test_order_is_that_of_the_forward_pass(self, family, models):
        units = discover_units(models[family])
        calls = _calls(models[family], FAMILIES[family].batch())
        assert order_units(units, calls) == units

    def test_only_embeddings_own_parameters_outside_their_modules(self, family, models):
        for unit in discover_units(models[family]):
            inside = tuple(f"{module}." for module in unit.modules)
            outside = [name for name in unit.parameters if not name.startswith(inside)]
            assert not outside or unit.kind is UnitKind.EMBEDDING


@pytest.mark.parametrize("family", ["bert", "t5", "tv_resnet18", "timm_swin", "lstm_attention"])
def test_wrapping_a_model_adds_only_to_the_head(family, models):
    model = Wrapper(models[family])
    units = discover_units(model)
    check_partition(model, units)
    assert [unit.name for unit in units] == EXPECTED[family].split()
    assert units[-1].modules[-1] == "head"


@pytest.mark.parametrize(
    ("family", "modules"),
    [
        pytest.param("gpt2", ("transformer.wte", "lm_head", "transformer.wpe"), id="gpt2"),
        pytest.param("llama", ("model.embed_tokens", "lm_head"), id="llama"),
        pytest.param(
            "t5", ("shared", "encoder.embed_tokens", "decoder.embed_tokens", "lm_head"), id="t5"
        ),
    ],
)
def test_tied_modules_join_the_lowest_unit(family, modules, models):
    units = discover_units(models[family])
    assert units[0].modules == modules
    assert not any("lm_head" in unit.modules for unit in units[1:])


def test_tied_head_registered_before_the_embedding():
    model = nn.Module()
    model.lm_head = nn.Linear(4, 9, bias=False)
    model.body, model.embed = mlp(4, 4, 4), nn.Embedding(9, 4)
    model.embed.weight = model.lm_head.weight
    units = discover_units(model)
    check_partition(model, units)
    assert units[0].modules == ("embed", "lm_head")
    assert units[0].parameters == ("lm_head.weight",)


def test_partly_tied_module_keeps_its_own_unit():
    model = nn.Sequential(nn.Embedding(4, 4), nn.Linear(4, 4), nn.Linear(4, 4))
    model[2].weight = model[0].weight
    units = discover_units(model)
    check_partition(model, units)
    assert (units[-1].modules, units[-1].parameters) == (("2",), ("2.bias",))


def test_a_block_that_is_used_twice_is_one_unit():
    block = nn.TransformerEncoderLayer(8, 2, 8)
    model = nn.ModuleList([nn.Linear(8, 8), block, block, nn.TransformerEncoderLayer(8, 2, 8)])
    check_partition(model, discover_units(model))
    assert names_of(model) == ["stem", "1", "3"]


def test_two_towers():
    model = Siamese()
    units = discover_units(model)
    check_partition(model, units)
    assert [unit.name for unit in units] == [
        "embeddings",
        *(f"query.encoder.layer.{i}" for i in range(3)),
        "query.pooler",
        "document.embeddings",
        *(f"document.encoder.layer.{i}" for i in range(3)),
        "head",
    ]
    assert units[-1].modules == ("document.pooler",)
    assert "logit_scale" in units[-1].parameters


def test_heads_of_several_tasks_are_no_blocks():
    model = MultiTask()
    units = discover_units(model)
    check_partition(model, units)
    assert [unit.name for unit in units] == ["blocks.0", "blocks.1", "blocks.2", "head"]
    assert units[-1].modules == ("heads.a", "heads.b", "heads.c")


def test_a_model_inside_an_attribute_called_like_a_head():
    model = nn.Module()
    model.classifier = FAMILIES["tv_resnet18"].build()
    assert names_of(model) == EXPECTED["tv_resnet18"].split()


def test_weight_norm_changes_nothing():
    model = FAMILIES["cnn_sequential"].build()
    nn.utils.parametrizations.weight_norm(model[3])
    check_partition(model, discover_units(model))
    assert names_of(model) == EXPECTED["cnn_sequential"].split()


def test_blocks_as_attributes():
    assert names_of(Attributes()) == ["stem", "down1", "down2", "down3", "head"]


@pytest.mark.parametrize(
    ("family", "options", "expected"),
    [
        pytest.param(
            "bert", {"num_hidden_layers": 1}, "embeddings encoder.layer.0 head", id="bert"
        ),
        pytest.param(
            "t5",
            {"num_layers": 1, "num_decoder_layers": 1},
            "embeddings encoder.block.0 encoder.final_layer_norm decoder.block.0 head",
            id="t5",
        ),
    ],
)
def test_single_layers(family, options, expected, models):
    original = models[family]
    config = type(original.config)(**{**original.config.to_diff_dict(), **options})
    assert names_of(type(original)(config)) == expected.split()


@pytest.mark.parametrize(
    "model", [nn.Linear(2, 2), nn.LSTM(2, 2), nn.MultiheadAttention(4, 2)], ids=lambda m: type(m)
)
def test_a_model_that_is_one_layer_is_one_unit(model):
    (unit,) = discover_units(model)
    assert (unit.name, unit.kind, unit.modules) == ("model", UnitKind.BLOCK, ("",))


def test_ambiguous_names_stay_qualified():
    model = nn.Module()
    model.body = nn.Module()
    model.body.embed = nn.Embedding(9, 8)
    model.body.layers = nn.ModuleList(mlp(8, 8, 8) for _ in range(2))
    model.layers = nn.ModuleList(mlp(8, 8, 8) for _ in range(2))
    assert names_of(model) == [
        "embeddings",
        "body.layers.0",
        "body.layers.1",
        "layers.0",
        "layers.1",
    ]
