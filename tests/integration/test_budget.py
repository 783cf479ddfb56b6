"""The run ends on its budget."""

from __future__ import annotations

import pytest
import torch
from lightning.pytorch import Callback

from lightning_attnbal.allocate import FullAllocator, LastKAllocator
from lightning_attnbal.callbacks import AttentionBalancer
from lightning_attnbal.core import InfeasibleBudgetError
from tests.integration.tiny import Classifier, fit, weights

LONG = {"num_batches": 120, "max_epochs": 3}


def full_step(balancer: AttentionBalancer) -> float:
    """FLOPs of a step of the full run."""
    return balancer.reference.amount / (LONG["num_batches"] * LONG["max_epochs"])


@pytest.mark.parametrize("share", [0.15, 0.25, 0.40, 0.70])
def test_share_is_met_and_not_exceeded(tmp_path, share):
    balancer = AttentionBalancer(budget=share)
    fit(tmp_path, balancer, **LONG)
    spent = balancer.spent / balancer.limit
    one_step = full_step(balancer) / balancer.limit.amount
    assert spent <= 1
    assert spent >= 1 - max(0.005, one_step)
    assert balancer.limit.amount == pytest.approx(share * balancer.reference.amount)


@pytest.mark.parametrize("max_epochs", [3, -1])
def test_absolute_flops(tmp_path, max_epochs):
    probe = AttentionBalancer(budget=1.0)
    fit(tmp_path / "probe", probe, **LONG)
    budget = f"{0.3 * probe.reference.amount} FLOP"
    balancer = AttentionBalancer(budget=budget)
    fit(tmp_path, balancer, num_batches=120, max_epochs=max_epochs)
    assert 0.99 <= balancer.spent / balancer.limit <= 1


def test_a_budget_below_the_first_step_is_refused_and_one_above_it_is_kept(tmp_path):
    probe = AttentionBalancer(budget=1.0)
    fit(tmp_path / "probe", probe, num_batches=4, max_epochs=1)
    step = probe.reference.amount / 4
    model = Classifier()
    before = weights(model)
    with pytest.raises(InfeasibleBudgetError, match=r"\(one step that trains everything"):
        fit(tmp_path, AttentionBalancer(budget=f"{0.9 * step} FLOP"), model=model)
    assert all(torch.equal(before[name], value) for name, value in weights(model).items())
    balancer = AttentionBalancer(budget=f"{1.1 * step} FLOP")
    _, trainer = fit(tmp_path, balancer, num_batches=4, max_epochs=1)
    assert trainer.global_step == 1
    assert balancer.spent / balancer.limit == pytest.approx(1 / 1.1)
    num = next(n for n in range(2, 1000) if step * n * (1 / n) < step)  # a step, but for rounding
    _, trainer = fit(tmp_path, AttentionBalancer(budget=1 / num), num_batches=num, max_epochs=1)
    assert trainer.global_step == 1


def test_full_for_fewer_steps_is_the_full_run_cut_short(tmp_path):
    """At 50 % full training makes exactly half of the steps."""
    balancer = AttentionBalancer(budget="50%", allocator=FullAllocator())
    model, trainer = fit(tmp_path, balancer, num_batches=20, max_epochs=2)
    assert trainer.global_step == 20
    assert len(model.rates) == 20


@pytest.mark.parametrize("schedule", ["linear", "cosine", "rex"])
def test_learning_rate_reaches_its_floor_when_the_budget_ends(tmp_path, schedule):
    balancer = AttentionBalancer(budget="40%", lr_schedule=schedule, warmup=0.1)
    model, trainer = fit(tmp_path, balancer, num_batches=60)
    rates = model.rates
    top = max(range(len(rates)), key=rates.__getitem__)
    num_steps = 0.4 * 3 * 60
    assert rates[0] == pytest.approx(model.lr * 0.5 / (0.1 * num_steps))  # its middle
    assert rates[top] == pytest.approx(model.lr, rel=0.1)
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert trainer.optimizers[0].param_groups[0]["lr"] == 0
    assert rates[-1] < 0.06 * model.lr


def test_users_step_scheduler_is_paced_by_budget(tmp_path):
    balancer = AttentionBalancer(budget="30%")
    model, trainer = fit(tmp_path, balancer, model=Classifier(scheduler="step"), num_batches=60)
    assert trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(0, abs=1e-9)
    assert model.rates == sorted(model.rates, reverse=True)


class Snapshots(Callback):
    """Weights after each batch."""

    def __init__(self) -> None:
        self.after: list[dict[str, torch.Tensor]] = []

    def on_train_batch_end(self, trainer, pl_module, *args):
        self.after.append(weights(pl_module))


def test_planned_frozen_does_not_move_by_one_bit_and_trained_does(tmp_path):
    snapshots = Snapshots()
    balancer = AttentionBalancer(
        budget="60%", allocator=LastKAllocator(2), calibration_steps=1, lr_schedule=None
    )
    fit(tmp_path, balancer, num_batches=20, callbacks=[snapshots])
    decided = balancer.history[0].step - 1
    start, end = snapshots.after[decided], snapshots.after[-1]
    units = {u.name: u.parameters for u in balancer.units}
    for unit, level in balancer.plan.items():
        for name in units[unit]:
            assert torch.equal(start[name], end[name]) != level.is_trained, name


def test_nothing_remains_on_the_model_after_fit(tmp_path):
    model = Classifier()
    model.embedding.weight.requires_grad_(False)
    before = {n: p.requires_grad for n, p in model.named_parameters()}
    fit(tmp_path, AttentionBalancer(budget="40%"), model=model, num_batches=20)
    assert {n: p.requires_grad for n, p in model.named_parameters()} == before
    for module in model.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
        assert module.training


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_nothing_remains_after_an_exception(tmp_path, error):
    class Bomb(Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            if trainer.global_step == 15:
                raise error("stop")

    model = Classifier()
    balancer = AttentionBalancer(budget="40%")
    with pytest.raises((error, SystemExit)):
        fit(tmp_path, balancer, model=model, num_batches=20, callbacks=[Bomb()])
    assert all(p.requires_grad for p in model.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_memory_limit_rules_out_plans_that_do_not_fit(tmp_path):
    free = AttentionBalancer(budget="100%")
    fit(tmp_path / "free", free)
    tight = AttentionBalancer(budget="100%", memory="160KiB")
    fit(tmp_path / "tight", tight)
    assert set(map(str, free.plan.values())) == {"full"}
    assert {"frozen", "full"} == set(map(str, tight.plan.values()))
    assert tight.spent < tight.limit
