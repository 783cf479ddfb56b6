"""Discovery with the user's own units, refusals, and reordering."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lightning_attnbal.core import UnsupportedModelError
from lightning_attnbal.measure._discover import discover_units, order_units
from tests.families import FAMILIES
from tests.unit.measure.discovery import check_partition, mlp, names_of


@pytest.fixture(scope="module")
def models() -> dict[str, nn.Module]:
    return {name: FAMILIES[name].build() for name in ("bert", "gpt2")}


class TestUserUnits:
    def test_patterns_stay_within_a_component(self, models):
        units = discover_units(models["bert"], ["bert.encoder.layer.*"])
        assert units == discover_units(models["bert"])

    def test_list_of_some_modules(self, models):
        names = names_of(models["bert"], ["bert.encoder.layer.2", "classifier"])
        assert names == ["embeddings", "encoder.layer.2", "pooler", "classifier"]

    def test_mapping(self, models):
        model = models["bert"]
        spec = {"low": ["bert.embeddings", "bert.encoder.layer.[01]"], "top": ["*.encoder.*.2"]}
        units = discover_units(model, spec)
        check_partition(model, units)
        assert [unit.name for unit in units] == ["low", "top", "head"]
        assert units[0].modules == (
            "bert.embeddings",
            "bert.encoder.layer.0",
            "bert.encoder.layer.1",
        )

    def test_function(self):
        model = mlp(4, 4, 4, 4, 4)
        units = discover_units(model, lambda m: [["0", "1"], [str(len(m) - 1)]])
        check_partition(model, units)
        assert [(unit.name, unit.modules) for unit in units] == [
            ("0", ("0", "1")),
            ("2", ("2",)),
            ("3", ("3",)),
        ]

    def test_a_list_module_stands_for_what_is_in_it(self, models):
        units = discover_units(models["gpt2"], {"body": ["transformer.h"]})
        check_partition(models["gpt2"], units)
        assert [unit.name for unit in units] == ["embeddings", "body", "head"]
        assert units[1].modules == ("transformer.h.0", "transformer.h.1", "transformer.h.2")

    def test_names_that_a_role_would_repeat(self):
        names = names_of(mlp(4, 4, 4, 4), {"head": ["1"]})
        assert names == ["stem", "head", "2"]

    def test_kind_follows_the_modules(self, models):
        spec = {"lookup": ["bert.embeddings"], "answer": ["bert.pooler", "classifier"]}
        spec["body"] = ["bert.encoder.layer.*"]
        kinds = {unit.name: unit.kind.value for unit in discover_units(models["bert"], spec)}
        assert kinds == {"lookup": "embedding", "body": "block", "answer": "head"}


class TestErrors:
    def test_no_module(self):
        with pytest.raises(
            TypeError, match=r"Expected `model` to be a torch.nn.Module, but got list"
        ):
            discover_units([nn.Linear(2, 2)])

    def test_no_parameters(self):
        with pytest.raises(UnsupportedModelError, match="to have parameters, but ReLU has none"):
            discover_units(nn.ReLU())

    def test_lazy_parameters(self):
        model = nn.Sequential(nn.Linear(2, 2), nn.LazyLinear(2))
        with pytest.raises(UnsupportedModelError, match=r"'1\.weight' is not; run one forward"):
            discover_units(model)

    def test_pattern_that_matches_nothing_names_close_ones(self, models):
        with pytest.raises(ValueError, match=r"'bert\.pooller'; this model has .*'bert\.pooler'"):
            discover_units(models["bert"], ["bert.pooller"])

    def test_pattern_far_from_everything_lists_the_top_modules(self, models):
        with pytest.raises(ValueError, match=r"but got 'zzz'; this model has 'bert', 'classifier'"):
            discover_units(models["bert"], ["zzz"])

    def test_pattern_for_modules_without_parameters(self):
        with pytest.raises(ValueError, match="to match a module with parameters, but got '1'"):
            discover_units(nn.Sequential(nn.Linear(2, 2), nn.ReLU()), ["1"])

    def test_overlap(self, models):
        with pytest.raises(ValueError, match="not to overlap, but `units` has 'classifier' in 2"):
            discover_units(models["bert"], {"a": ["classifier"], "b": ["class*"]})

    def test_nested(self, models):
        with pytest.raises(ValueError, match=r"'bert\.encoder' and 'bert\.encoder\.layer\.0'"):
            discover_units(models["bert"], ["bert.encoder", "bert.encoder.layer.0"])

    def test_unit_of_tied_parameters_only(self, models):
        with pytest.raises(ValueError, match="those of 'lm_head' are tied to lower units"):
            discover_units(models["gpt2"], ["transformer.h.*", "lm_head"])

    @pytest.mark.parametrize(
        "spec",
        ["bert.encoder", [], [1], {"a": "bert.encoder"}, lambda _: ["bert"], 3],
        ids=["text", "empty", "numbers", "mapping to text", "function of names", "number"],
    )
    def test_form(self, spec, models):
        with pytest.raises(TypeError, match="Expected `units` to be a list of module names"):
            discover_units(models["bert"], spec)


class TestOrder:
    def test_first_call_decides(self):
        units = discover_units(mlp(2, 2, 2, 2))
        ordered = order_units(units, ["2", "1", "0", "2"])
        assert [(unit.index, unit.name) for unit in ordered] == [(0, "head"), (1, "1"), (2, "0")]

    def test_calls_inside_a_module_count(self, models):
        units = discover_units(models["bert"])
        ordered = order_units(units, ["bert.encoder.layer.1.attention", "bert.embeddings"])
        assert [unit.name for unit in ordered[:2]] == ["encoder.layer.1", "embeddings"]

    def test_never_called_goes_last_and_bare_embeddings_first(self):
        model = nn.Module()
        model.cls_token = nn.Parameter(torch.zeros(1, 1, 8))
        model.layers = nn.ModuleList(mlp(8, 8, 8) for _ in range(3))
        ordered = order_units(discover_units(model), ["layers.2", "layers.1"])
        names = [unit.name for unit in ordered]
        assert names == ["embeddings", "layers.2", "layers.1", "layers.0"]
        assert ordered[0].modules == ()
