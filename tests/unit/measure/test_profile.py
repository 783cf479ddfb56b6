"""Profiling in one call: what it reports, and that the model is as before."""

from __future__ import annotations

import json
import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import nn

from lightning_attnbal.core import FULL, Dimension, PassCost, Unit, UnitKind, UnitLoad
from lightning_attnbal.measure import LoadReport, UnitTracer, count_units, profile, time_units
from tests.families import FAMILIES


def everything(model):
    """All that a profile could change: values, gradients, flags, modes, hooks, random state."""
    hooks = [
        len(getattr(module, kind))
        for module in model.modules()
        for kind in ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks")
    ]
    tensors = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    gradients = {
        f"{n}.grad": p.grad.clone() for n, p in model.named_parameters() if p.grad is not None
    }
    flags = [(p.requires_grad, id(p)) for p in model.parameters()]
    modes = [module.training for module in model.modules()]
    states = (torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist())
    return {**tensors, **gradients}, (flags, modes, hooks), states


def assert_unchanged(before, after):
    assert before[0].keys() == after[0].keys()
    assert all(torch.equal(before[0][name], after[0][name]) for name in before[0])
    assert before[1] == after[1]
    assert torch.equal(before[2][0], after[2][0])
    assert before[2][1:] == after[2][1:]


@pytest.mark.parametrize("name", ["tv_resnet18", "bert", "lstm_attention"])
def test_the_model_is_left_as_found(name):
    family = FAMILIES[name]
    model = family.build()
    optimizer = torch.optim.AdamW(model.parameters())
    family.loss(model, family.batch()).backward()
    next(model.parameters()).requires_grad_(False)
    before = everything(model)
    profile(model, family.batch(), forward=family.loss, optimizer=optimizer, repeats=1)
    assert_unchanged(before, everything(model))
    assert len(optimizer.state) == 0


class Noisy(nn.Module):
    """Draws random numbers, moves a buffer, and may raise after that."""

    def __init__(self):
        super().__init__()
        self.low, self.high = nn.Linear(4, 4), nn.Linear(4, 4)
        self.register_buffer("calls", torch.zeros(()))
        self.is_broken = False

    def forward(self, x):
        self.calls += 1
        self.register_buffer("calls", self.calls + 1)
        x = self.low(x) * torch.rand(()) * random.random() * np.random.rand()
        if self.is_broken:
            raise ArithmeticError("no result")
        return self.high(nn.functional.dropout(x))


def test_the_model_is_left_as_found_after_an_exception():
    model = Noisy()
    model.is_broken = True
    before, buffer = everything(model), model.calls
    with pytest.raises(ArithmeticError, match="no result"):
        profile(model, torch.ones(2, 4))
    assert_unchanged(before, everything(model))
    assert model.calls is buffer


def test_rebound_buffers_and_all_random_states_come_back():
    model = Noisy()
    before, buffer = everything(model), model.calls
    profile(model, torch.ones(2, 4), repeats=1)
    assert_unchanged(before, everything(model))
    assert model.calls is buffer


def test_report():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 2)
    )
    report = profile(model, torch.ones(4, 8), units=["0", "2", "4"], seconds=False)
    product = 2 * 4
    expected = product * (2 * 8 * 32 + 3 * 32 * 32 + 3 * 32 * 2)
    assert report.flops.amount == expected
    assert report.seconds is None
    assert report.bottlenecks[0] == "2"
    assert report.critical_path.units == ("0", "2", "4")
    assert report.critical_path.parallelism == 1.0
    assert LoadReport.from_dict(json.loads(json.dumps(report.to_dict()))) == report


@pytest.mark.parametrize(
    "batch",
    [{"input": torch.ones(4, 8)}, (torch.ones(4, 8),), [torch.ones(4, 8)], torch.ones(4, 8)],
    ids=["mapping", "tuple", "list", "tensor"],
)
def test_forms_of_batch(batch):
    model = nn.Sequential(nn.Linear(8, 8))
    assert profile(model, batch, seconds=False).flops.amount == 2 * 2 * 4 * 8 * 8


def test_frozen_parameters_count_as_never_trained():
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
    model[0].requires_grad_(False)
    report = profile(model, torch.ones(4, 8), units=["0", "1"], seconds=False)
    assert [load.flops.full_backward for load in report.loads] == [0, 2 * 4 * 8 * 8]


def test_seconds_of_every_unit():
    model = nn.Sequential(nn.Linear(8, 64), nn.Linear(64, 64), nn.Linear(64, 2))
    optimizer = torch.optim.AdamW(model.parameters())
    report = profile(
        model, torch.ones(64, 8), units=["0", "1", "2"], optimizer=optimizer, repeats=2
    )
    for load in report.loads:
        assert 0 < load.seconds.forward < 1
        assert 0 < load.seconds.full_backward < 1
        assert 0 < load.seconds.optimizer < 1
    assert report.loads[0].seconds.pass_backward == 0
    assert report.seconds.dimension is Dimension.SECOND
    assert report.critical_path.dimension is Dimension.SECOND


def test_timing_needs_real_inputs():
    model = nn.Sequential(nn.Linear(4, 4))
    units = [Unit("0", 0, UnitKind.BLOCK, ("0",), ("0.weight", "0.bias"), 20)]
    with UnitTracer(model, units) as tracer:
        trace = tracer.stop(model(torch.ones(2, 4)))
    loads = count_units(model, units, trace)
    with pytest.raises(ValueError, match="Expected `trace` to hold real inputs"):
        time_units(model, loads, trace)


def test_table_shows_every_unit_and_the_bottleneck():
    cost = PassCost(forward=1e9, own_backward=1e9, pass_backward=1e9, full_backward=2e9)
    names = ("embeddings", "layer.0", "layer.1", "head")
    loads = [
        UnitLoad(
            Unit(name, i, UnitKind.BLOCK, (name,), (), 10**6), cost, predecessors=(i - 1,) * bool(i)
        )
        for i, name in enumerate(names)
    ]
    loads[2] = replace(loads[2], flops=PassCost(forward=5e9))
    console = Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(LoadReport(tuple(loads), PassCost(forward=1e6), "Toy"))
    console.file.close()
    text = console.export_text()
    assert all(name in text for name in names)
    assert "Cognitive load of Toy" in text
    assert "bottlenecks: layer.1" in text
    assert "critical path: embeddings → layer.0 → layer.1 → head" in text
    assert "outside of all units 1 MFLOP" in text


def test_full_plan_cost_is_the_reported_total():
    from lightning_attnbal.measure import plan_cost

    family = FAMILIES["timm_vit"]
    report = profile(family.build(), family.batch(), forward=family.loss, seconds=False)
    levels = [FULL] * len(report.loads)
    assert plan_cost(report.loads, levels, fixed=report.fixed.total) == report.flops.amount
