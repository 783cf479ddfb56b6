"""Updates judged by the next batch: exact products, unbiased means, nothing left behind."""

from __future__ import annotations

import pytest
import torch

from lightning_attnbal.measure import CrossBatchMeter, GradientUpdateMeter
from tests.unit.measure.contribution.models import NoisyLinear, distance, two_layers, unit

LR = 0.05


def backward(model, optimizer, scale=1.0):
    optimizer.zero_grad()
    (scale * model(torch.randn(5, 3)).square().mean()).backward()


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda p: torch.optim.SGD(p, lr=LR, momentum=0.9), id="SGD momentum"),
        pytest.param(lambda p: torch.optim.AdamW(p, lr=LR, weight_decay=0.1), id="AdamW"),
    ],
)
def test_it_is_the_taken_step_times_the_next_gradient(make):
    model, units = two_layers()
    optimizer = make(model.parameters())
    meter = CrossBatchMeter(model, units)
    expected, step = [], None
    for _ in range(6):
        backward(model, optimizer)
        weight = model[1].weight
        if step is not None:
            expected.append((step * weight.grad).sum().item())
        meter.before_step()
        before = weight.detach().clone()
        optimizer.step()
        meter.after_step([optimizer])
        step = (before - weight.detach()) / LR
    found = meter.compute()["1"]
    assert found.count == 5
    assert found.mean == pytest.approx(sum(expected) / 5, rel=1e-4)


def test_unbiased_where_gradient_times_update_is_not():
    """After a step from offset δ the slope is δ − lr g, so E v = ‖δ‖² − lr E‖g‖²."""
    problem = NoisyLinear(offset=0.7)
    optimizer = torch.optim.SGD(problem.model.parameters(), lr=LR)
    values, plain = [], []
    for _ in range(1500):
        problem.reset()
        cross = CrossBatchMeter(problem.model, problem.units)
        same = GradientUpdateMeter(problem.model, problem.units)
        for is_first in (True, False):
            optimizer.zero_grad()
            problem.loss().backward()
            cross.before_step(starts=is_first)
            if not is_first:
                break
            same.before_step()
            optimizer.step()
            cross.after_step([optimizer])
            same.after_step([optimizer])
        values.append(cross.compute()["all"].mean)
        plain.append(same.compute()["all"].mean)
    assert abs(distance(values, problem.squared_slope - LR * problem.squared_norm)) <= 4
    assert distance(plain, problem.squared_slope) > 4
    assert abs(distance(plain, problem.squared_norm)) <= 4


def test_a_sampled_step_is_completed_by_the_next_one():
    model, units = two_layers()
    optimizer = torch.optim.SGD(model.parameters(), lr=LR)
    meter = CrossBatchMeter(model, units)
    pending = []
    for step in range(6):
        backward(model, optimizer)
        if step % 3 == 0 or meter.is_pending:
            meter.before_step(starts=step % 3 == 0)
        optimizer.step()
        meter.after_step([optimizer])
        pending.append(meter.is_pending)
    assert pending == [True, False, False, True, False, False]
    assert meter.compute()["0"].count == 2


def test_a_unit_frozen_in_between_is_dropped_and_the_other_counts():
    model, units = two_layers()
    optimizer = torch.optim.SGD(model.parameters(), lr=LR)
    meter = CrossBatchMeter(model, units)
    backward(model, optimizer)
    meter.before_step()
    optimizer.step()
    meter.after_step([optimizer])
    model[0].weight.requires_grad_(False)
    backward(model, optimizer)
    meter.before_step(starts=False)
    assert set(meter.compute()) == {"1"}
    assert not meter.is_pending


def test_a_unit_without_a_gradient_from_the_next_batch_is_dropped():
    model, units = two_layers()
    optimizer = torch.optim.SGD(model.parameters(), lr=LR)
    meter = CrossBatchMeter(model, units)
    backward(model, optimizer)
    meter.before_step()
    optimizer.step()
    meter.after_step([optimizer])
    optimizer.zero_grad()
    model[1](torch.randn(5, 4)).mean().backward()
    meter.before_step(starts=False)
    assert set(meter.compute()) == {"1"}


def test_forgetting_drops_what_is_pending():
    model, units = two_layers()
    optimizer = torch.optim.SGD(model.parameters(), lr=LR)
    meter = CrossBatchMeter(model, units)
    backward(model, optimizer)
    meter.before_step()
    optimizer.step()
    meter.after_step([optimizer])
    assert meter.is_pending
    meter.forget(["0", "1"])
    assert not meter.is_pending
    backward(model, optimizer)
    meter.before_step(starts=False)
    assert meter.compute() == {}


def test_a_step_of_which_nothing_was_begun_leaves_nothing():
    model, units = two_layers()
    optimizer = torch.optim.SGD(model.parameters(), lr=LR)
    meter = CrossBatchMeter(model, units)
    backward(model, optimizer)
    optimizer.step()
    meter.after_step([optimizer])
    assert not meter.is_pending


def test_a_parameter_with_two_names_counts_once():
    model, _ = two_layers()
    model.again = model[1]
    meters = [
        CrossBatchMeter(model, [unit("head", *names)])
        for names in (("1.weight",), ("1.weight", "again.weight"))
    ]
    optimizer = torch.optim.SGD(model.parameters(), lr=LR)
    for _ in range(2):
        optimizer.zero_grad()
        model[1](torch.randn(5, 4)).square().mean().backward()
        for meter in meters:
            meter.before_step()
        optimizer.step()
        for meter in meters:
            meter.after_step([optimizer])
    assert meters[0].compute() == meters[1].compute()
    assert meters[0].compute()["head"].count == 1


@pytest.mark.parametrize("later", [0.0, 10 * LR], ids=["at its floor", "raised"])
def test_a_rate_that_is_gone_after_the_step_still_counts(later):
    found = []
    for lr_after in (LR, later):
        torch.manual_seed(0)
        model, units = two_layers()
        optimizer = torch.optim.SGD(model.parameters(), lr=LR)
        meter = CrossBatchMeter(model, units)
        for _ in range(3):
            backward(model, optimizer)
            optimizer.param_groups[0]["lr"] = LR
            meter.before_step(optimizers=[optimizer])
            optimizer.step()
            optimizer.param_groups[0]["lr"] = lr_after  # a scheduler was faster
            meter.after_step([optimizer])
        found.append(meter.compute())
    assert found[0] == found[1]
    assert found[0]["1"].count == 2
