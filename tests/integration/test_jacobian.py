"""Aggregated gradients in a real Trainer: the hand-written loop's weights, and the true cost."""

from __future__ import annotations

from types import SimpleNamespace

import lightning.pytorch as pl
import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch import nn
from torch.utils.data import DataLoader
from torchjd.autojac import jac_to_grad, mtl_backward

from lightning_attnbal.allocate import FullAllocator
from lightning_attnbal.callbacks import AttentionBalancer
from lightning_attnbal.measure import flop_counter
from lightning_attnbal.multitask import make_aggregator
from lightning_attnbal.trainer import JacobianBackward
from tests.integration.tiny import same, weights

TASKS = ("a", "b", "c")
WIDTH, BATCH, NUM_BATCHES, LR = 8, 4, 8, 0.1


class ThreeTasks(JacobianBackward):
    """A trunk of two layers and three heads that want different things of it."""

    def __init__(self, method="upgrad", width=WIDTH):
        super().__init__()
        torch.manual_seed(0)
        self.trunk = nn.Sequential(
            nn.Linear(width, width, bias=False), nn.Tanh(), nn.Linear(width, width, bias=False)
        )
        self.heads = nn.ModuleDict({t: nn.Linear(width, 1) for t in TASKS})
        self.aggregator = make_aggregator(method, TASKS)

    def losses(self, batch):
        features = self.trunk(batch)
        targets = {"a": batch[:, 0], "b": -batch[:, 0], "c": batch[:, 1]}
        return {
            t: (self.heads[t](features).squeeze(1) - y).square().mean() for t, y in targets.items()
        }, features

    def training_step(self, batch, batch_idx):
        return self.keep(*self.losses(batch))

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=LR, momentum=0.9)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)]


class Plain(ThreeTasks):
    """The same without aggregation: the sum of the losses."""

    def backward(self, loss, *args, **kwargs):
        loss.backward()


def batches():
    generator = torch.Generator().manual_seed(1)
    return torch.randn(NUM_BATCHES * BATCH, WIDTH, generator=generator)


def fit(model, tmp_path, **options):
    trainer = pl.Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
        **options,
    )
    trainer.fit(model, DataLoader(batches(), BATCH))
    return model


def by_hand(model, accumulate, clip):
    """TorchJD as in its documentation, in a plain loop."""
    (optimizer,), (scheduler,) = model.configure_optimizers()
    for _ in range(2):
        for n, batch in enumerate(batches().split(BATCH)):
            losses, features = model.losses(batch)
            mtl_backward([x / accumulate for x in losses.values()], features, parallel_chunk_size=1)
            jac_to_grad(model.trunk.parameters(), model.aggregator)
            if (n + 1) % accumulate == 0:
                if clip:
                    nn.utils.clip_grad_norm_(model.parameters(), clip)
                optimizer.step()
                optimizer.zero_grad()
        scheduler.step()
    return model


@pytest.mark.parametrize("method", ["upgrad", "mgda", "aligned_mtl"])
@pytest.mark.parametrize(
    ("accumulate", "clip"),
    [
        pytest.param(1, None, id="every batch"),
        pytest.param(2, None, id="accumulated"),
        pytest.param(2, 0.1, id="accumulated and clipped"),
    ],
)
def test_the_trainer_takes_the_steps_of_a_loop_by_hand(method, accumulate, clip, tmp_path):
    expected = weights(by_hand(ThreeTasks(method), accumulate, clip))
    options = {"accumulate_grad_batches": accumulate, "gradient_clip_val": clip}
    found = weights(fit(ThreeTasks(method), tmp_path, **options))
    assert same(found, expected)
    assert not same(found, weights(fit(Plain(), tmp_path, **options)))


def test_summed_gradients_are_the_plain_backward_pass(tmp_path):
    found, plain = fit(ThreeTasks("sum"), tmp_path), fit(Plain("sum"), tmp_path)
    for name, value in weights(plain).items():
        torch.testing.assert_close(found.state_dict()[name], value)


def test_the_loss_may_be_scaled_but_nothing_added():
    model, grads = ThreeTasks("sum"), []
    model.trainer = SimpleNamespace(world_size=1)
    for factor in (1.0, 3.0):
        model.zero_grad()
        model.backward(factor * model.training_step(batches()[:BATCH], 0))
        grads.append([p.grad for p in model.parameters()])
    torch.testing.assert_close(grads[1], [3 * g for g in grads[0]])
    loss = model.training_step(batches()[:BATCH], 0)
    with pytest.raises(ValueError, match="but something was added"):
        model.backward(loss + 0.1 * model.trunk[0].weight.square().sum())


def test_a_step_costs_a_backward_pass_of_the_trunk_per_task():
    width, batch = 32, torch.randn(256, 32)
    counts = {}
    for kind in (ThreeTasks, Plain):
        model = kind(width=width)
        model.trainer = SimpleNamespace(world_size=1)
        with flop_counter() as counter:
            model.backward(model.training_step(batch, 0))
        counts[kind] = counter.get_total_flops()
    trunk_backward = 3 * 2 * len(batch) * width * width  # two dW, one dX
    extra = counts[ThreeTasks] - counts[Plain]
    num_shared = sum(p.numel() for p in model.trunk.parameters())
    gramian = 2 * len(TASKS) ** 2 * num_shared
    combination = 2 * len(TASKS) * num_shared
    assert extra == (len(TASKS) - 1) * trunk_backward + gramian + combination
    assert extra == pytest.approx((len(TASKS) - 1) * trunk_backward, rel=0.1)


def test_refusals():
    model = ThreeTasks()
    model.trainer = SimpleNamespace(world_size=2)
    with pytest.raises(MisconfigurationException, match=r"Expected a single process .* but got 2"):
        model.backward(model.training_step(batches()[:BATCH], 0))
    model = ThreeTasks()
    model.trainer = SimpleNamespace(world_size=1)
    with pytest.raises(ValueError, match="return the loss of `keep`, but it was not called"):
        model.backward(sum(model.losses(batches()[:BATCH])[0].values()))


def test_a_full_budget_changes_nothing(tmp_path):
    plain = fit(ThreeTasks(), tmp_path)
    balanced = fit(ThreeTasks(), tmp_path, callbacks=[AttentionBalancer(budget="100%")])
    assert same(weights(balanced), weights(plain))


def test_a_budget_is_charged_what_such_a_step_costs(tmp_path):
    model = ThreeTasks()
    model.trainer = SimpleNamespace(world_size=1)
    with flop_counter() as counter:
        model.backward(model.training_step(batches()[:BATCH], 0))
    balancer = AttentionBalancer(budget="50%", allocator=FullAllocator())
    fit(ThreeTasks(), tmp_path, callbacks=[balancer])
    step = counter.get_total_flops()
    assert balancer.reference.amount == pytest.approx(2 * NUM_BATCHES * step, rel=1e-9)
    assert balancer.flops.amount == pytest.approx(NUM_BATCHES * step, rel=1e-9)
