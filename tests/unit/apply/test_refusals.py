"""What cannot be detached, and why; and that asking changes nothing."""

import re

import pytest
import torch
from torch import nn

from lightning_attnbal.apply import PlanApplier, can_detach, why_not_detachable
from lightning_attnbal.core import Plan
from tests.families import FAMILIES
from tests.unit.apply.models import WIDTH, Residual, block_unit, direction_like, num_hooks, split


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


def test_first_blocks_of_each_stage_of_a_residual_network_are_refused():
    model = FAMILIES["tv_resnet18"].build()
    found = [can_detach(model, block_unit(model, f"layer{i}.{j}")) for i in (1, 2) for j in (0, 1)]
    assert found == [True, True, False, True]
