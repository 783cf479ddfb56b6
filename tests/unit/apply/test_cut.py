"""Cuts beside PyTorch's own machinery: fused attention, checkpoints, compilation, side inputs."""

from functools import partial

import pytest
import torch
from torch import nn

from lightning_attnbal.apply import PlanApplier
from lightning_attnbal.core import Plan
from tests.families import FAMILIES, forward
from tests.family_models import T5, hugging_face
from tests.unit.apply.models import WIDTH, block_unit, direction_like, split


def encoder_layer(norm_first):
    torch.manual_seed(0)
    return nn.TransformerEncoderLayer(
        WIDTH, 2, 32, dropout=0.0, batch_first=True, norm_first=norm_first
    )


def reference_local(layer, x):
    """`layer`, with the inputs of its two branches detached by hand."""
    attend = partial(layer._sa_block, attn_mask=None, key_padding_mask=None)
    if layer.norm_first:
        x = x + attend(layer.norm1(x.detach()))
        return x + layer._ff_block(layer.norm2(x.detach()))
    x = layer.norm1(x + attend(x.detach()))
    return layer.norm2(x + layer._ff_block(x.detach()))


@pytest.mark.parametrize("norm_first", [True, False], ids=["pre-norm", "post-norm"])
def test_local_parameters_get_their_exact_own_gradient(norm_first):
    model = nn.Sequential(encoder_layer(norm_first))
    x = torch.randn(2, 5, WIDTH, generator=torch.Generator().manual_seed(0))
    direction = direction_like(x)
    x.requires_grad_()
    inputs = (x, *model.parameters())
    expected = torch.autograd.grad(reference_local(model[0], x), inputs, direction)
    with PlanApplier(model, [block_unit(model, "0")]) as applier:
        applier.apply(Plan({"0": "local"}))
        found = torch.autograd.grad(model(x), inputs, direction)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


@pytest.mark.parametrize("norm_first", [True, False], ids=["pre-norm", "post-norm"])
def test_a_detached_layer_stays_off_the_fused_attention_that_rounds_differently(norm_first):
    model = nn.Sequential(encoder_layer(norm_first), nn.Linear(WIDTH, 2))
    x = torch.randn(2, 5, WIDTH, generator=torch.Generator().manual_seed(0))
    with PlanApplier(model, split(model, "0", "1")) as applier:
        applier.apply(Plan({"0": "frozen", "1": "full", "rest": "full"}))
        expected = model[0](x.clone().requires_grad_())
        applier.apply(Plan({"0": "detached", "1": "full", "rest": "full"}))
        assert torch.equal(model[0](x), expected)
    assert torch.backends.mha.get_fastpath_enabled()


def test_the_fused_attention_is_back_after_an_error_inside_a_cut_block():
    model = nn.Sequential(encoder_layer(norm_first=True))
    with PlanApplier(model, [block_unit(model, "0")]) as applier:
        applier.apply(Plan({"0": "local"}))
        with pytest.raises(RuntimeError, match="normalized_shape"):
            model(torch.ones(2, 5, WIDTH + 1))
    assert torch.backends.mha.get_fastpath_enabled()


class PassesBias(nn.Module):
    """T5's way: a bias goes into the branch and on to the next block."""

    def __init__(self):
        super().__init__()
        self.norm, self.mix = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x, bias):
        return x + self.mix(self.norm(x) + bias), bias


def test_side_inputs_get_no_gradient_from_the_branch_but_pass_through_unharmed():
    model = nn.Sequential(PassesBias())
    x = torch.randn(3, WIDTH, generator=torch.Generator().manual_seed(0)).requires_grad_()
    bias = torch.ones(WIDTH, requires_grad=True)
    applier = PlanApplier(model, [block_unit(model, "0")], forward=lambda: model[0](x, bias))
    applier.apply(Plan({"0": "local"}))
    output, passed = model[0](x, bias=bias)
    (output.sum() + 2 * passed.sum()).backward()
    assert passed is bias
    assert bias.grad.tolist() == [2.0] * WIDTH
    assert x.grad.eq(1).all()


def test_the_position_bias_of_t5_still_learns_from_blocks_above_a_cut_one():
    options = {**T5, "num_layers": 3}
    model = hugging_face("T5ForConditionalGeneration", "T5Config", options)
    batch = FAMILIES["t5"].batch()
    first, cut = model.encoder.block[0].layer[0].SelfAttention, "encoder.block.1"
    torch.nn.init.zeros_(first.o.weight)  # so that the block that owns the bias teaches it nothing
    with PlanApplier(model, split(model, cut), forward=partial(forward, model, batch)) as applier:
        applier.apply(Plan({cut: "detached", "rest": "full"}))
        model(**batch).loss.backward()
    assert first.relative_attention_bias.weight.grad.abs().sum() > 0


def test_padded_batches_pass_a_transformer_encoder_whose_first_layers_are_frozen():
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
    model = nn.TransformerEncoder(layer, 3).train()
    x = torch.randn(2, 6, 16, generator=torch.Generator().manual_seed(0))
    padding = torch.arange(6) >= torch.tensor([[3], [6]])
    plan = Plan({"layers.0": "frozen", "layers.1": "frozen", "layers.2": "full", "rest": "full"})
    with PlanApplier(model, split(model, *list(plan)[:3])) as applier:
        applier.apply(plan)
        model(x, src_key_padding_mask=padding).square().sum().backward()
        assert [p.grad is None for p in model.layers.parameters()] == [True] * 24 + [False] * 12
        dropouts = [m.training for m in model.modules() if isinstance(m, nn.Dropout)]
        attentions = [m.training for m in model.modules() if isinstance(m, nn.MultiheadAttention)]
    assert dropouts == [False] * 6 + [True] * 3
    assert attentions == [False, False, True]


def test_gradients_cross_a_frozen_layer_in_eval_mode():
    layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True)
    model = nn.TransformerEncoder(layer, 2).train()
    x = torch.randn(2, 6, 16, generator=torch.Generator().manual_seed(0))

    def gradient():
        model.zero_grad()
        model(x).square().sum().backward()
        return [p.grad.clone() for p in model.layers[0].parameters()]

    expected = gradient()
    with PlanApplier(model, split(model, "layers.0", "layers.1")[:2]) as applier:
        applier.apply(Plan({"layers.0": "full", "layers.1": "frozen"}))
        found = gradient()
    torch.testing.assert_close(found, expected)  # rounding depends on what needs a gradient


def checkpointed(reentrant):
    model = FAMILIES["bert"].build()
    model.activation_checkpointing_enable({"use_reentrant": reentrant})
    return model


@pytest.mark.parametrize("level", ["detached", "local"])
def test_checkpointed_blocks_give_the_same_gradients(level):
    batch, names = FAMILIES["bert"].batch(), [f"bert.encoder.layer.{i}" for i in (1, 2)]
    gradients = []
    for model in (FAMILIES["bert"].build(), checkpointed(reentrant=False)):
        applier = PlanApplier(model, split(model, *names), forward=partial(forward, model, batch))
        applier.apply(Plan({names[0]: level, names[1]: level, "rest": "full"}))
        FAMILIES["bert"].loss(model, batch).backward()
        gradients.append([p.grad for p in model.parameters() if p.grad is not None])
    torch.testing.assert_close(gradients[0], gradients[1], rtol=0, atol=0)


def test_reentrant_checkpoints_are_refused():
    model = checkpointed(reentrant=True)
    name = "bert.encoder.layer.0"
    applier = PlanApplier(model, split(model, name))
    applier.apply(Plan({name: "full", "rest": "full"}))
    match = "module 'bert.*' uses reentrant activation checkpointing, .*; use .*False"
    with pytest.raises(ValueError, match=match):
        applier.apply(Plan({name: "frozen", "rest": "full"}))


@pytest.mark.slow
def test_compiled_models_notice_a_cut_that_changes_nothing_but_hooks():
    model = nn.Sequential(encoder_layer(norm_first=True), encoder_layer(norm_first=True))
    x = torch.randn(2, 5, WIDTH, generator=torch.Generator().manual_seed(0))
    compiled = torch.compile(model, backend="eager", fullgraph=True)

    def gradients(run):
        model.zero_grad()
        run(x).square().sum().backward()
        return [p.grad.clone() for p in model.parameters()]

    gradients(compiled)
    with PlanApplier(model, split(model, "0", "1")) as applier:
        applier.apply(Plan({"0": "full", "1": "local", "rest": "full"}))
        torch.testing.assert_close(gradients(compiled), gradients(model))
    torch.testing.assert_close(gradients(compiled), gradients(model))
