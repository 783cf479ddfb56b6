"""What the forecast sees of a run and does to it: learning rates, losses, an early end."""

from __future__ import annotations

import math

import pytest
import torch

from lightning_attnbal.allocate import (
    CurvePrior,
    ForecastAllocator,
    FullAllocator,
    LastKAllocator,
)
from lightning_attnbal.callbacks import AttentionBalancer
from lightning_attnbal.core import Plan
from lightning_attnbal.tracking import CostSpent, RunEnded
from tests.integration.tiny import BATCH, Classifier, Spy, fit, same, trained_before, weights

SHALLOW = LastKAllocator(2)  # the head and one of four blocks
FACTOR = 2.0  # √(4 / 1)


class Watched(Classifier):
    """Notes the learning rate while a step is taken and when it was."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.used, self.left, self.losses = [], [], []

    def on_before_optimizer_step(self, optimizer):
        self.used.append(optimizer.param_groups[0]["lr"])

    def optimizer_step(self, epoch, batch_idx, optimizer, optimizer_closure=None):
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        self.left.append(optimizer.param_groups[0]["lr"])

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        self.losses.append(float(loss.detach()))
        return loss


def factors(balancer: AttentionBalancer, num_steps: int) -> list[float]:
    """The factor of the plan in force at each step; 1 before the first decision."""
    found = [1.0] * num_steps
    for decision in balancer.history:
        rest = num_steps - decision.step
        found[decision.step :] = [decision.plan.lr_factor] * rest
    return found


@pytest.mark.parametrize(
    ("schedule", "accumulate"), [(None, 1), ("linear", 1), ("cosine", 2)], ids=str
)
def test_a_step_under_a_shallow_plan_is_taken_at_the_rate_times_its_factor(
    tmp_path, schedule, accumulate
):
    balancer = AttentionBalancer("50%", allocator=SHALLOW, lr_schedule=schedule)
    model, trainer = fit(
        tmp_path,
        balancer,
        model=Watched(),
        num_batches=20,
        accumulate_grad_batches=accumulate,
        max_epochs=2,
    )
    rates = model.rates[accumulate - 1 :: accumulate]  # as the schedule has them
    expected = factors(balancer, trainer.global_step)
    assert set(expected) == {1.0, FACTOR}
    assert model.used == [rate * factor for rate, factor in zip(rates, expected, strict=True)]
    assert model.left == rates
    spent = [e for e in balancer.events if isinstance(e, CostSpent)]
    recorded = {e.step: e.learning_rate for e in spent if 5 <= e.step < len(rates)}
    assert recorded
    assert recorded == {step: rates[step] * FACTOR for step in recorded}


@pytest.mark.parametrize("scheduler", ["epoch", "onecycle"])
def test_schedulers_that_are_left_alone_never_see_the_factor(tmp_path, scheduler):
    balancer = AttentionBalancer("50%", allocator=SHALLOW, lr_schedule=None, calibration_steps=1)
    model, trainer = fit(tmp_path, balancer, model=Watched(scheduler=scheduler), max_epochs=2)
    plain, _ = fit(tmp_path, None, model=Watched(scheduler=scheduler), max_epochs=2)
    num = trainer.global_step
    assert num > 12
    assert model.rates == plain.rates[:num]
    expected = factors(balancer, num)
    assert model.used == [r * f for r, f in zip(plain.rates, expected, strict=False)]


def test_schedulers_paced_by_budget_never_see_the_factor(tmp_path):
    runs = {}
    for scaling in ("depth", None):
        balancer = AttentionBalancer("50%", allocator=SHALLOW, lr_scaling=scaling, probes=0)
        model = Watched(scheduler="onecycle")
        runs[scaling], _ = fit(tmp_path / str(scaling), balancer, model=model)
    assert runs["depth"].rates == runs[None].rates
    assert runs[None].used == runs[None].rates
    assert max(runs["depth"].used) == pytest.approx(FACTOR * max(runs[None].used), rel=0.1)


def test_contributions_are_per_unit_of_the_rate_that_the_step_was_taken_at(tmp_path):
    """SGD without momentum: doubling the rate of a frozen-below plan changes no first estimate."""

    class Plain(Watched):
        def configure_optimizers(self):
            optimizer = torch.optim.SGD(self.parameters(), lr=1e-7)
            scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
            return [optimizer], [{"scheduler": scheduler, "interval": "step"}]

    values = []
    for scaling in (None, lambda plan, units: 1000.0):
        spy = Spy(SHALLOW)
        balancer = AttentionBalancer("60%", allocator=spy, lr_schedule=None, lr_scaling=scaling)
        fit(tmp_path, balancer, model=Plain(), num_batches=12, max_epochs=3)
        values.append([[menu.options[-1].value for menu in p.menus] for p in spy.problems])
    assert len(values[0]) > 2
    torch.testing.assert_close(*map(torch.tensor, values), rtol=1e-2, atol=1e-4)


@pytest.mark.parametrize(
    "options",
    [{"budget": "100%"}, {"budget": "50%", "lr_scaling": None}],
    ids=["full budget", "no scaling"],
)
def test_nothing_is_scaled(tmp_path, options):
    balancer = AttentionBalancer(**options, allocator=SHALLOW)
    model, _ = fit(tmp_path, balancer, model=Watched())
    assert model.used == model.rates == model.left
    assert {decision.plan.lr_factor for decision in balancer.history} == {1.0}


def test_full_plans_are_not_scaled(tmp_path):
    balancer = AttentionBalancer("50%", allocator=FullAllocator())
    model, _ = fit(tmp_path, balancer, model=Watched())
    assert model.used == model.rates


def test_a_rule_of_ones_own(tmp_path):
    asked = []

    def rule(plan, units):
        asked.append((plan, tuple(unit.name for unit in units)))
        return 0.25 * len(plan.trained)

    model = Watched()
    model.embedding.requires_grad_(False)
    balancer = AttentionBalancer("50%", allocator=SHALLOW, lr_scaling=rule)
    fit(tmp_path, balancer, model=model)
    assert {factor for decision in balancer.history if (factor := decision.plan.lr_factor)} == {0.5}
    assert all(isinstance(plan, Plan) for plan, _ in asked)
    assert {"embeddings"} == set(balancer.plan) - set(asked[0][1])
    expected = factors(balancer, len(model.used))
    assert model.used == [r * f for r, f in zip(model.rates, expected, strict=True)]


@pytest.mark.parametrize("wrong", ["width", 3, 0.5])
def test_an_unknown_rule_is_refused(wrong):
    with pytest.raises((ValueError, TypeError), match=r"Expected `lr_scaling` to be .*'?depth'?"):
        AttentionBalancer("50%", lr_scaling=wrong)


@pytest.mark.parametrize("factor", [0.0, -1.0, math.nan, math.inf])
def test_a_rule_that_gives_no_factor_is_refused(tmp_path, factor):
    balancer = AttentionBalancer("50%", lr_scaling=lambda plan, units: factor)
    with pytest.raises(ValueError, match=r"Expected `lr_factor` to be in \(0, inf\), but got"):
        fit(tmp_path, balancer)


def test_optimizers_are_left_as_they_were(tmp_path):
    model, trainer = fit(tmp_path, AttentionBalancer("50%", allocator=SHALLOW), model=Watched())
    (optimizer,) = trainer.optimizers
    before = {name: tensor.clone() for name, tensor in model.named_parameters()}
    optimizer.param_groups[0]["lr"] = 1.0
    model(torch.zeros(2, 3, dtype=torch.long)).sum().backward()
    optimizer.step()
    assert optimizer.param_groups[0]["lr"] == 1.0
    assert not torch.equal(before["head.bias"], model.head.bias)


@pytest.mark.parametrize("accumulate", [pytest.param(1, marks=pytest.mark.slow), 3])
def test_the_forecast_is_told_the_losses_of_the_run(tmp_path, accumulate):
    spy = Spy(ForecastAllocator())
    balancer = AttentionBalancer("50%", allocator=spy)
    model, _ = fit(
        tmp_path,
        balancer,
        model=trained_before(Watched()),
        num_batches=24,
        accumulate_grad_batches=accumulate,
    )
    for progress in spy.progress:
        if not progress.segments:
            continue
        batches = int(progress.steps) * accumulate
        assert progress.steps == sum(segment.steps for segment in progress.segments)
        mean = sum(s.loss * s.steps for s in progress.segments) / progress.steps
        assert mean == pytest.approx(sum(model.losses[:batches]) / batches, rel=1e-5)
    names = [set(segment.trained) for segment in spy.progress[-1].segments]
    assert names[0] == set(balancer.plan)
    assert spy.progress[-1].fresh == frozenset()


def test_a_model_from_scratch_is_trained_whole(tmp_path):
    spy = Spy(ForecastAllocator())
    balancer = AttentionBalancer("40%", allocator=spy)
    fit(tmp_path, balancer)
    assert {f"encoder.layers.{i}" for i in range(4)} <= spy.progress[-1].fresh
    assert set(balancer.plan.trained) == set(balancer.plan)


PATIENT = {"num_batches": 10, "max_epochs": -1}


@pytest.mark.parametrize("accumulate", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_run_ends_early_when_nothing_more_can_be_learned(tmp_path, accumulate):
    allocator = ForecastAllocator(prior=CurvePrior(passes=4))
    balancer = AttentionBalancer("1e15 FLOP", allocator=allocator)
    model, trainer = fit(
        tmp_path,
        balancer,
        model=trained_before(Watched()),
        accumulate_grad_batches=accumulate,
        **PATIENT,
    )
    assert trainer.global_step == 4 * 10 // accumulate
    assert "Ended: more training is not expected to help." in balancer.explain()
    assert isinstance(balancer.events[-1], RunEnded)
    assert balancer.events[-1].why == "more training is not expected to help"
    assert balancer.spent / balancer.limit < 0.01
    assert trainer.optimizers[0].param_groups[0]["lr"] == 0
    assert model.rates[-1] < 0.05 * model.lr
    assert max(model.rates) > 0.75 * model.lr
    assert min(model.rates[:-1]) > 1e-3 * model.lr  # a step of 1e-11 is lost to rounding


def test_an_early_end_resumed_is_still_the_end(tmp_path):
    prior = CurvePrior(passes=4)
    options = {"model": trained_before(Watched()), **PATIENT}
    balancer = AttentionBalancer("1e15 FLOP", allocator=ForecastAllocator(prior=prior))
    model, trainer = fit(tmp_path, balancer, **options)
    trainer.save_checkpoint(tmp_path / "end.ckpt")
    before = weights(model)
    again = AttentionBalancer("1e15 FLOP", allocator=ForecastAllocator(prior=prior))
    resumed, trainer = fit(tmp_path, again, ckpt_path=str(tmp_path / "end.ckpt"), **options)
    assert trainer.global_step == 40
    assert same(before, weights(resumed))
    assert BATCH * trainer.global_step == 160
