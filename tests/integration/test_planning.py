"""What is forecast before a run is what the run begins with."""

from __future__ import annotations

import inspect

import pytest
import torch
from torch.utils.data import DataLoader

from lightning_attnbal.callbacks import AttentionBalancer
from lightning_attnbal.callbacks._session import Session
from lightning_attnbal.planning import forecast_plans
from tests.integration.tiny import BATCH, Classifier, dataset, fit


@pytest.mark.parametrize("budget", ["12%", "30%"])
def test_the_first_plan_is_the_one_that_was_forecast(tmp_path, monkeypatch, budget):
    monkeypatch.setattr(Session, "values", lambda self: {u.name: 1.0 for u in self.units})
    model = Classifier()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    batch = next(iter(DataLoader(dataset(80), BATCH)))
    forecast = forecast_plans(
        model,
        batch,
        steps_per_epoch=20,
        epochs=6,
        budgets=[budget],
        forward=lambda model, batch: model(batch[0]),
    ).outlooks[0]
    balancer = AttentionBalancer(budget)
    fit(tmp_path, balancer, model=model, num_batches=20, max_epochs=6)
    first = balancer.history[0]
    assert first.step == forecast.calibration_steps
    assert first.remaining == pytest.approx(
        forecast.limit.amount - forecast.calibration_steps * forecast.full_step, rel=1e-2
    )
    assert first.plan.same_levels(forecast.begin)
    assert first.plan.num_steps == pytest.approx(forecast.begin.num_steps, abs=1)
    assert balancer.limit.amount == pytest.approx(forecast.limit.amount, rel=1e-2)


def test_levels_are_the_balancers():
    ours, its = (
        inspect.signature(f).parameters["levels"].default
        for f in (forecast_plans, AttentionBalancer)
    )
    assert ours == its
