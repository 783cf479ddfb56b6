"""What is found in a model before any run."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lightning_attnbal.planning import Verdict, diagnose_model
from tests.families import FAMILIES


def by_subject(findings):
    return {finding.subject: (finding.verdict, finding.text) for finding in findings}


def blocks(*middle):
    """Two blocks around what is given, and a head."""
    first, second = (nn.Sequential(nn.Linear(8, 8), nn.Tanh(), *middle) for _ in range(2))
    return nn.Sequential(nn.ModuleList([first, second])[0], second, nn.Linear(8, 2))


def batch():
    return (torch.randn(8, 8),)


@pytest.mark.parametrize("name", ["bert", "gpt2", "timm_resnet"])
def test_families_can_be_balanced(name):
    family = FAMILIES[name]
    found = by_subject(diagnose_model(family.build(), family.batch(), forward=family.loss))
    assert found["units"][0] is Verdict.FINE
    assert found["caching"][0] is Verdict.FINE
    assert found["caching"][1].startswith("A frozen prefix can be cached, up to ")
    assert [f for f in found.values() if f[0] in {Verdict.LIMITED, Verdict.REFUSED}] == []


def test_attention_is_what_can_be_looked_at():
    family = FAMILIES["bert"]
    found = by_subject(diagnose_model(family.build(), family.batch(), forward=family.loss))
    verdict, text = found["attention"]
    assert verdict is Verdict.FINE
    assert text.endswith("2 per layer.")


def test_tied_weights_are_named():
    found = by_subject(diagnose_model(FAMILIES["gpt2"].build()))
    verdict, text = found["tied weights"]
    assert verdict is Verdict.NOTE
    assert "transformer.wte.weight = lm_head.weight" in text


def test_the_model_is_left_as_it_is():
    model = blocks(nn.BatchNorm1d(8), nn.Dropout(0.5))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    diagnose_model(model, batch())
    after = model.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert [p.grad for p in model.parameters()] == [None] * len(list(model.parameters()))
    assert model.training


def test_randomness_below_the_head_is_counted():
    found = by_subject(diagnose_model(blocks(nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Dropout(0.0))))
    assert found["batch norm"][1].startswith("2 batch norms below the head")
    assert found["dropout"][1].startswith("2 dropouts below the head")


def test_without_a_batch_nothing_is_run():
    class Explosive(nn.Linear):
        def forward(self, *_):
            raise AssertionError

    model = nn.Sequential(Explosive(4, 4), Explosive(4, 4), Explosive(4, 4))
    assert "needs a batch" in by_subject(diagnose_model(model))["levels"][1]


class Noise(nn.Module):
    """Draws a number at each call, in eval mode too."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(8, 8)

    def forward(self, x):
        return self.linear(x) + torch.rand(())


def test_a_prefix_that_cannot_be_cached_is_a_limit_with_the_reason():
    linears = [nn.Linear(8, 8) for _ in range(2)]
    model = nn.Sequential(*linears, Noise(), nn.Linear(8, 8), nn.Linear(8, 2))
    units = {"a": ["0"], "b": ["1"], "noise": ["2"], "c": ["3"], "d": ["4"]}
    verdict, text = by_subject(diagnose_model(model, batch(), units=units))["caching"]
    assert verdict is Verdict.LIMITED
    assert text.startswith("A frozen prefix can be cached up to b; up to c not, because ")
    assert text.endswith(" It is frozen instead.")


def test_what_no_gradient_reaches_is_named():
    class Unused(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = blocks()
            self.spare = nn.Linear(3, 3)

        def forward(self, x):
            return self.body(x)

    found = by_subject(diagnose_model(Unused(), batch(), units={"b": ["body"], "s": ["spare"]}))
    assert found["unused"] == (Verdict.NOTE, "No gradient reached s on this batch.")


def test_what_the_user_froze_is_named():
    model = blocks()
    model[0].requires_grad_(False)
    verdict, text = by_subject(diagnose_model(model, batch()))["parameters"]
    assert verdict is Verdict.NOTE
    assert "You froze 0; the balancer leaves that so." in text


def test_nothing_trainable_is_refused_and_nothing_is_run():
    found = by_subject(diagnose_model(blocks().requires_grad_(False), batch()))
    assert found["parameters"][0] is Verdict.REFUSED
    assert "caching" not in found


def test_a_model_without_parameters_is_refused():
    found = by_subject(diagnose_model(nn.ReLU(), batch()))
    assert found["units"] == (
        Verdict.REFUSED,
        "Expected `model` to have parameters, but ReLU has none.",
    )


def test_one_unit_is_a_limit():
    found = by_subject(diagnose_model(nn.Linear(8, 2), batch()))
    assert found["units"][0] is Verdict.LIMITED
    assert found["caching"] == (Verdict.LIMITED, "Only the lowest unit may train: no prefix.")


@pytest.mark.parametrize("reentrant", [True, False])
def test_reentrant_checkpointing_is_refused(reentrant):
    model = FAMILIES["bert"].build()
    model.activation_checkpointing_enable({"use_reentrant": reentrant})
    found = by_subject(diagnose_model(model))
    if reentrant:
        assert found["freezing"][0] is Verdict.REFUSED
        assert "reentrant activation checkpointing" in found["freezing"][1]
    else:
        assert found["activation checkpointing"][0] is Verdict.FINE


def test_a_model_whose_output_has_no_gradient_cannot_be_tried():
    class Constant(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)])

        def forward(self, x):
            return x

    with pytest.raises(ValueError, match="return a tensor that gradients reach"):
        diagnose_model(Constant(), batch())
