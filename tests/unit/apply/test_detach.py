"""Cut branches against explicit references, in every family."""

import re
from functools import partial

import pytest
import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks

from lightning_attnbal.apply import PlanApplier, can_detach, why_not_detachable
from lightning_attnbal.apply._calls import record_calls
from lightning_attnbal.core import Plan
from tests.families import FAMILIES, forward
from tests.family_models import T5, hugging_face
from tests.unit.apply.models import (
    BLOCKS,
    POST_NORM,
    PRE_NORM,
    RELU,
    WIDTH,
    Residual,
    block_unit,
    num_hooks,
    split,
)

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


class Setup:
    """A family's block at a level, with what it is called with."""

    def __init__(self, family, level):
        self.model = FAMILIES[family].build()
        self.batch = FAMILIES[family].batch()
        self.name = BLOCKS[family]
        self.block = self.model.get_submodule(self.name)
        self.run = lambda: forward(self.model, self.batch)
        self.call = record_calls(self.model, [self.name], self.run)[self.name]
        self.applier = PlanApplier(self.model, split(self.model, self.name), forward=self.run)
        self.plan = Plan({self.name: level, "rest": "full"})


def output_of(block, call, x):
    out = block(x, *call.args[1:], **call.kwargs)
    return out[0] if isinstance(out, tuple) else out


def direction_like(tensor):
    return torch.randn(tensor.shape, generator=torch.Generator().manual_seed(2))


def norm_chain(block, names, values, direction):
    """Gradient towards the first norm's skip input, through one norm after the other."""
    for name in reversed(names):
        leaf = values[name].requires_grad_()
        (direction,) = torch.autograd.grad(block.get_submodule(name)(leaf), leaf, direction)
    return direction


def norm_inputs(block, names, call):
    """What each norm reads in a plain forward pass."""
    values = {}

    def note(name, module, args):
        values[name] = args[0].detach().clone()

    hooks = [block.get_submodule(n).register_forward_pre_hook(partial(note, n)) for n in names]
    with torch.no_grad():
        output_of(block, call, call.args[0])
    for hook in hooks:
        hook.remove()
    return values


@pytest.mark.parametrize("level", ["detached", "local"])
@pytest.mark.parametrize("family", BLOCKS)
def test_values_are_those_of_the_uncut_block_bit_for_bit(family, level):
    setup = Setup(family, level)
    uncut = {"detached": "frozen", "local": "full"}[level]
    setup.block.eval()
    x = setup.call.args[0].clone().requires_grad_()
    setup.applier.apply(Plan({**setup.plan.levels, setup.name: uncut}))
    expected = output_of(setup.block, setup.call, x)
    setup.applier.apply(setup.plan)
    assert torch.equal(output_of(setup.block, setup.call, x), expected)


@pytest.mark.parametrize("level", ["detached", "local"])
@pytest.mark.parametrize("family", PRE_NORM)
def test_pre_norm_gradient_is_the_identity(family, level):
    setup = Setup(family, level)
    setup.applier.apply(setup.plan)
    x = setup.call.args[0].clone().requires_grad_()
    output = output_of(setup.block, setup.call, x)
    direction = direction_like(output)
    (gradient,) = torch.autograd.grad(output, x, direction)
    assert torch.equal(gradient, direction)


@pytest.mark.parametrize("level", ["detached", "local"])
@pytest.mark.parametrize("family", POST_NORM)
def test_post_norm_gradient_goes_through_the_norms_only(family, level):
    setup = Setup(family, level)
    names = POST_NORM[family][1]
    values = norm_inputs(setup.block, names, setup.call)
    setup.applier.apply(setup.plan)
    x = setup.call.args[0].clone().requires_grad_()
    output = output_of(setup.block, setup.call, x)
    direction = direction_like(output)
    (gradient,) = torch.autograd.grad(output, x, direction)
    torch.testing.assert_close(gradient, norm_chain(setup.block, names, values, direction))


@pytest.mark.parametrize("family", RELU)
def test_residual_network_gradient_goes_through_the_last_rectifier_only(family):
    setup = Setup(family, "detached")
    setup.applier.apply(setup.plan)
    x = setup.call.args[0].clone().requires_grad_()
    output = output_of(setup.block, setup.call, x)
    direction = direction_like(output)
    (gradient,) = torch.autograd.grad(output, x, direction)
    assert torch.equal(gradient, direction * (output > 0))


def saved_numbers(model, run):
    """How many numbers autograd keeps, parameters apart, each storage once."""
    owned = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept = {}

    def pack(tensor):
        if tensor.untyped_storage().data_ptr() not in owned:
            kept[tensor.untyped_storage().data_ptr()] = tensor.numel()
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        result = run()
    return sum(kept.values()), result


def saved_in_block(family):
    setup = Setup(family, "detached")
    setup.applier.apply(setup.plan)
    x = setup.call.args[0].clone().requires_grad_()
    count, output = saved_numbers(setup.block, lambda: output_of(setup.block, setup.call, x))
    return count, output


@pytest.mark.parametrize("family", PRE_NORM)
def test_a_detached_pre_norm_block_saves_no_activation(family):
    assert saved_in_block(family)[0] == 0


@pytest.mark.parametrize("family", POST_NORM)
def test_a_detached_post_norm_block_saves_what_its_norms_need(family):
    count, output = saved_in_block(family)
    per_norm = output.numel() + 2 * output[..., 0].numel()  # input, mean, reciprocal deviation
    assert count == len(POST_NORM[family][1]) * per_norm


@pytest.mark.parametrize("family", RELU)
def test_a_detached_residual_network_block_saves_its_output(family):
    count, output = saved_in_block(family)
    assert count == output.numel()


@pytest.mark.parametrize("family", BLOCKS)
def test_in_the_whole_model_loss_and_who_gets_a_gradient_are_as_for_a_frozen_unit(family):
    setup = Setup(family, "detached")
    hooks = num_hooks(setup.model)
    losses, reached = [], []
    with setup.applier as applier:
        for level in ("frozen", "detached"):
            setup.model.zero_grad()
            applier.apply(Plan({**setup.plan.levels, setup.name: level}))
            losses.append(FAMILIES[family].loss(setup.model, setup.batch))
            losses[-1].backward()
            parameters = setup.model.named_parameters()
            reached.append({name for name, p in parameters if p.grad is not None})
    assert torch.equal(*losses)
    assert reached[0] == reached[1]
    assert num_hooks(setup.model) == hooks


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


class Functional(nn.Module):
    """One branch starts at a submodule, the other does not."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(WIDTH, WIDTH)
        self.second = nn.Parameter(torch.eye(WIDTH))

    def forward(self, x):
        x = x + self.first(x)
        return x + x @ self.second


class Expert(nn.Module):
    """A part of it runs only when asked."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(WIDTH, WIDTH)
        self.second = nn.Linear(WIDTH, WIDTH)

    def forward(self, x, both=False):
        x = x + self.first(x)
        return x + self.second(x) if both else x


class Downsample(nn.Module):
    """A residual block whose skip path is a matrix product."""

    def __init__(self):
        super().__init__()
        self.skip, self.branch = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x):
        return self.skip(x) + self.branch(x)


REFUSED = {
    "lstm": (nn.LSTM(8, 8), "no skip path leads from its first input to its output"),
    "gru": (nn.GRU(8, 8), "no skip path leads from its first input to its output"),
    "sequential": (
        nn.Sequential(nn.Linear(8, 8), nn.ReLU()),
        "no skip path leads from its first input to its output",
    ),
    "norm": (nn.LayerNorm(8), "no residual branch starts at one of its submodules"),
    "embedding": (nn.Embedding(9, 8), "no made-up input fits its forward"),
    "downsample": (Downsample(), "no skip path leads from its first input to its output"),
    "functional": (Functional(), "some branch does not start at a submodule"),
    "unused part": (Expert(), r"it leaves second.weight, second.bias unused\); pass `forward=`"),
}


@pytest.mark.parametrize(("module", "reason"), REFUSED.values(), ids=REFUSED)
def test_what_has_no_branch_to_cut_is_refused_with_the_reason(module, reason):
    model = nn.Sequential(module)
    unit = block_unit(model, "0")
    assert re.search(reason, why_not_detachable(model, unit))
    assert not can_detach(model, unit)


def test_reasons_from_a_real_batch():
    model = nn.ModuleDict({"used": nn.Embedding(9, WIDTH), "idle": Residual()})
    units = split(model, "used", "idle")
    tokens = torch.arange(4)
    applier = PlanApplier(model, units, forward=lambda: model["used"](tokens))
    assert [applier.why_not_detachable(unit.name) for unit in units] == [
        "its first input is not a floating point tensor",
        "its module 'idle' was not called",
        "it has no module of its own",
    ]


def test_a_real_batch_shows_parts_that_a_made_up_one_cannot():
    model = nn.Sequential(Expert())
    unit = block_unit(model, "0")
    x = torch.ones(2, WIDTH)
    assert can_detach(model, unit, lambda: model[0](x, both=True))
    direction = direction_like(x)
    with PlanApplier(model, [unit], forward=lambda: model[0](x, both=True)) as applier:
        applier.apply(Plan({"0": "local"}))
        leaf = x.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(model[0](leaf, both=True), leaf, direction)
    assert torch.equal(gradient, direction)


def test_looking_changes_nothing():
    model = nn.Sequential(Residual(), nn.Linear(WIDTH, 2)).train()
    model[0].linear.bias.requires_grad_(False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    flags = [p.requires_grad for p in model.parameters()]
    random_state = torch.get_rng_state()
    x = torch.ones(4, WIDTH)
    assert can_detach(model, block_unit(model, "0"), lambda: model(x))
    assert torch.equal(torch.get_rng_state(), random_state)
    assert [p.requires_grad for p in model.parameters()] == flags
    assert all(module.training for module in model.modules())
    assert num_hooks(model) == 0
    torch.testing.assert_close(dict(model.state_dict()), before, rtol=0, atol=0)


@pytest.mark.parametrize("family", BLOCKS)
def test_made_up_inputs_agree_with_real_ones(family):
    setup = Setup(family, "detached")
    unit = block_unit(setup.model, setup.name)
    assert why_not_detachable(setup.model, unit) is None
    assert why_not_detachable(setup.model, unit, setup.run) is None


def test_first_blocks_of_each_stage_of_a_residual_network_are_refused():
    model = FAMILIES["tv_resnet18"].build()
    found = [can_detach(model, block_unit(model, f"layer{i}.{j}")) for i in (1, 2) for j in (0, 1)]
    assert found == [True, True, False, True]


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
