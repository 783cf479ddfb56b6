"""What the comparison meters find, against closed forms."""

from __future__ import annotations

import itertools
import math
import statistics

import pytest
import torch

from lightning_attnbal.measure import (
    ActivationChangeMeter,
    FisherMeter,
    GradientNormMeter,
    PlasticityMeter,
    RelativeGradientChangeMeter,
)
from tests.unit.measure.contribution.runs import Run


def gradients_of(run, number):
    """The gradients of unit 1 in each of the first steps of a run."""
    found = []
    for batch in run.batches[:number]:
        run.optimizer.zero_grad()
        run.model(batch).square().mean().backward()
        found.append(run.model[1].weight.grad.clone())
        run.optimizer.step()
    return found


@pytest.mark.parametrize(
    ("kind", "value"),
    [(GradientNormMeter, lambda g: g.norm()), (FisherMeter, lambda g: g.square().sum())],
    ids=["norm", "fisher"],
)
def test_gradient_meters_average_over_steps(kind, value):
    run = Run(kind)
    meter = run.meter()
    run.feed(meter, run.batches[:6])
    values = [value(g).item() for g in gradients_of(Run(kind), 6)]
    assert meter.compute()["1"].mean == pytest.approx(statistics.mean(values), rel=1e-6)


def test_norm_meter_takes_the_order():
    run = Run(GradientNormMeter)
    meter = GradientNormMeter(run.model, run.units, order=1)
    run.feed(meter, run.batches[:6])
    values = [g.abs().sum().item() for g in gradients_of(Run(GradientNormMeter), 6)]
    assert meter.compute()["1"].mean == pytest.approx(statistics.mean(values), rel=1e-6)
    with pytest.raises(ValueError, match=r"`order` to be in \[1, 2\]"):
        GradientNormMeter(run.model, run.units, order=0)


def test_relative_change_is_that_of_the_summed_gradients():
    run = Run(RelativeGradientChangeMeter)
    meter = RelativeGradientChangeMeter(run.model, run.units, interval=3)
    run.feed(meter, run.batches[:11])
    g = gradients_of(Run(RelativeGradientChangeMeter), 9)
    norms = [sum(g[i : i + 3]).abs().sum().item() for i in (0, 3, 6)]
    changes = [abs(b - a) / a for a, b in itertools.pairwise(norms)]
    assert meter.compute()["1"].count == 2
    assert meter.compute()["1"].mean == pytest.approx(statistics.mean(changes), rel=1e-5)
    with pytest.raises(ValueError, match=r"`interval` to be in \[1, inf\)"):
        RelativeGradientChangeMeter(run.model, run.units, interval=0)


def test_activation_change_follows_and_plasticity_stays_with_the_first():
    run = Run(ActivationChangeMeter)
    change, plastic = ActivationChangeMeter(run.units), PlasticityMeter(run.units)
    orthogonal, equal = torch.eye(2), torch.ones(2, 2)
    for output in (orthogonal, equal, equal):
        change.add("0", output)
        plastic.add("0", output)
    distance = (2 * (1 - 0.5**0.5) ** 2 + 2 * 0.5) / 4
    assert change.compute()["0"].mean == pytest.approx(0.5)  # 1, then 0
    assert plastic.compute()["0"].mean == pytest.approx(distance, rel=1e-6)
    plastic.renew()
    plastic.forget([])
    for output in (equal, equal):
        plastic.add("0", output)
    assert plastic.compute()["0"].count == 3
    assert plastic.compute()["0"].mean == pytest.approx(2 / 3 * distance, rel=1e-6)


def test_activations_are_kept_as_they_were():
    run = Run(ActivationChangeMeter)
    meter = ActivationChangeMeter(run.units)
    output = torch.ones(2)
    meter.add("0", output)
    output.mul_(3)
    meter.add("0", output)
    assert meter.compute()["0"].mean == pytest.approx(2.0)


@pytest.mark.parametrize("kind", [ActivationChangeMeter, PlasticityMeter])
def test_nan_is_not_what_later_outputs_are_compared_with(kind):
    run = Run(kind)
    meter = run.meter()
    for output in (math.nan, 1.0, math.inf, 1.0):
        meter.add("0", torch.full((2, 3), output))
    assert (meter.compute()["0"].count, meter.skipped) == (1, 2)
    assert meter.compute()["0"].mean == 0.0


def test_nan_is_not_summed_over_an_interval():
    run = Run(RelativeGradientChangeMeter)
    meter = RelativeGradientChangeMeter(run.model, run.units, interval=2)
    for gradient in (1.0, math.nan, 3.0, 2.0, math.inf, 1.0):
        meter.add("0", [torch.tensor(gradient)])
    assert meter.compute()["0"].mean == pytest.approx(0.25)
    assert meter.skipped == 2
