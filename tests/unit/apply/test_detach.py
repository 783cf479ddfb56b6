"""Cut branches against explicit references, in every family."""

from functools import partial

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks

from lightning_attnbal.apply import PlanApplier, why_not_detachable
from lightning_attnbal.apply._calls import record_calls
from lightning_attnbal.core import Plan
from tests.families import FAMILIES, forward
from tests.unit.apply.models import (
    BLOCKS,
    POST_NORM,
    PRE_NORM,
    RELU,
    block_unit,
    direction_like,
    num_hooks,
    split,
)


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


@pytest.mark.parametrize("family", BLOCKS)
def test_made_up_inputs_agree_with_real_ones(family):
    setup = Setup(family, "detached")
    unit = block_unit(setup.model, setup.name)
    assert why_not_detachable(setup.model, unit) is None
    assert why_not_detachable(setup.model, unit, setup.run) is None
