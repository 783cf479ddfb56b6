"""Gradient times update, against closed forms."""

from __future__ import annotations

import math
import statistics

import pytest
import torch
from torch import nn

from lightning_attnbal.core import Unit, UnitKind
from lightning_attnbal.measure import GradientUpdateMeter, gradient_update


def two_layers() -> tuple[nn.Sequential, list[Unit]]:
    model = nn.Sequential(nn.Linear(3, 4, bias=False), nn.Linear(4, 1, bias=False))
    units = [Unit(n, int(n), UnitKind.BLOCK, (n,), (f"{n}.weight",), 1) for n in "01"]
    return model, units


def step(model: nn.Module, optimizer: torch.optim.Optimizer, meter: GradientUpdateMeter) -> None:
    optimizer.zero_grad()
    model(torch.randn(5, 3)).square().mean().backward()
    meter.before_step()
    optimizer.step()
    meter.after_step([optimizer])


@pytest.mark.parametrize("lr", [0.1, 1e-3])
def test_under_sgd_it_is_the_squared_gradient_norm_at_any_rate(lr):
    weight = nn.Parameter(torch.randn(6, 2, dtype=torch.float64))
    weight.grad = torch.randn_like(weight)
    before = [weight.detach().clone()]
    torch.optim.SGD([weight], lr=lr).step()
    expected = weight.grad.square().sum().item()
    assert gradient_update(before, [weight], lr) == pytest.approx(expected, rel=1e-5)


def test_under_adam_the_first_step_gives_the_l1_norm():
    weight = nn.Parameter(torch.randn(50))
    weight.grad = torch.randn(50)
    before = [weight.detach().clone()]
    torch.optim.Adam([weight], lr=1e-2, eps=1e-12).step()
    expected = weight.grad.abs().sum().item()
    assert gradient_update(before, [weight], 1e-2) == pytest.approx(expected, rel=1e-3)


def test_it_is_the_first_order_decrease_of_the_loss():
    torch.manual_seed(0)
    model, units = two_layers()
    model.double()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-5)
    meter = GradientUpdateMeter(model, units)
    x = torch.randn(9, 3, dtype=torch.float64)
    loss = model(x).square().mean()
    loss.backward()
    meter.before_step()
    optimizer.step()
    meter.after_step([optimizer])
    decrease = (loss - model(x).square().mean()).item()
    total = 1e-5 * sum(c.mean for c in meter.compute().values())
    assert total == pytest.approx(decrease, rel=1e-3)


@pytest.mark.parametrize("lr", [0.0, -1.0, math.nan])
def test_rate_must_be_positive(lr):
    with pytest.raises(ValueError, match=r"`lr` to be in \(0, inf\)"):
        gradient_update([], [], lr)


def test_meter_gives_mean_and_standard_error():
    model, units = two_layers()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    meter = GradientUpdateMeter(model, units)
    seen = []
    for _ in range(6):
        optimizer.zero_grad()
        model(torch.randn(5, 3)).square().mean().backward()
        seen.append(model[1].weight.grad.square().sum().item())
        meter.before_step()
        optimizer.step()
        meter.after_step([optimizer])
    found = meter.compute()["1"]
    assert found.count == 6
    assert found.mean == pytest.approx(statistics.mean(seen), rel=1e-3)
    assert found.std_error == pytest.approx(statistics.stdev(seen) / math.sqrt(6), rel=1e-3)


def test_frozen_unit_keeps_its_last_estimate_and_a_forgotten_one_starts_afresh():
    model, units = two_layers()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    meter = GradientUpdateMeter(model, units)
    step(model, optimizer, meter)
    first = meter.compute()
    model[0].weight.requires_grad_(False)
    meter.forget(["1"])
    step(model, optimizer, meter)
    assert meter.compute()["0"] == first["0"]
    assert meter.compute()["1"].count == 1
    assert meter.compute()["1"] != first["1"]


def test_nan_and_zero_rate_do_not_enter():
    model, units = two_layers()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    meter = GradientUpdateMeter(model, units)
    step(model, optimizer, meter)
    assert meter.compute() == {}
    optimizer.param_groups[0]["lr"] = 0.1
    optimizer.zero_grad()
    (model(torch.randn(5, 3)).mean() * math.nan).backward()
    meter.before_step()
    optimizer.step()
    meter.after_step([optimizer])
    assert meter.compute() == {}
    assert meter.skipped == 2


def test_state_round_trip():
    model, units = two_layers()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    meter = GradientUpdateMeter(model, units)
    step(model, optimizer, meter)
    other = GradientUpdateMeter(model, units[1:])
    other.load_state_dict(meter.state_dict())
    assert other.compute() == {"1": meter.compute()["1"]}
