"""Tasks that help or harm each other get steps accordingly."""

from __future__ import annotations

import lightning.pytorch as pl
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_attnbal.callbacks import AttentionBalancer, TaskSettings
from lightning_attnbal.multitask import AffinityMeter
from lightning_attnbal.tracking import AffinityMeasured

WIDTH, BATCH = 8, 8


class Shared(pl.LightningModule):
    """Two linear layers that all tasks share, and nothing of their own."""

    def __init__(self):
        super().__init__()
        self.trunk, self.head = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 1)
        self.steps = 0

    def training_step(self, batch, batch_idx):
        self.steps += 1
        ((_, (x, y)),) = batch.items()
        return (self.head(self.trunk(x)).squeeze(1) - y).square().mean()

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=3e-3)


def loaders(sign, seed):
    """Tasks a and b want the same; c wants it too, or (sign −1) the opposite."""
    generator = torch.Generator().manual_seed(seed)
    data = {}
    for task, wanted in (("a", 1.0), ("b", 1.0), ("c", sign)):
        x = torch.randn(30 * BATCH, WIDTH, generator=generator)
        noise = 0.1 * torch.randn(len(x), generator=generator)
        data[task] = DataLoader(TensorDataset(x, wanted * x.sum(1) + noise), BATCH, shuffle=True)
    return data


def helper_and_main(sign, seed):
    """A task that counts, in batches of 80, and one that hardly does, in batches of 8.

    They want the same, or (sign -1) the opposite.
    """
    generator = torch.Generator().manual_seed(seed)
    data = {}
    for task, batch, wanted in (("main", 10 * BATCH, 1.0), ("helper", BATCH, sign)):
        x = torch.randn(60 * batch, WIDTH, generator=generator)
        y = wanted * x.sum(1) + 0.1 * torch.randn(len(x), generator=generator)
        data[task] = DataLoader(TensorDataset(x, y), batch, shuffle=True)
    return data


def run(folder, data, seed, epochs=4, model=None, **settings):
    pl.seed_everything(seed, verbose=False)
    tasks = TaskSettings(epoch_batches=45, reach=4.0, **settings)
    balancer = AttentionBalancer("50%", units=["trunk", "head"], tasks=tasks, lr_schedule=None)
    trainer = pl.Trainer(
        callbacks=[balancer],
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
    )
    trainer.fit(model or Shared(), data)
    return balancer


def signs(balancer):
    """Of the affinities measured last."""
    (seen,) = [e for e in balancer.events if isinstance(e, AffinityMeasured)][-1:]
    return [[value > 0 for value in row] for row in seen.affinity]


CONFLICT = [[True, True, False], [True, True, False], [False, False, True]]
FLOOR = pytest.approx(0.1)  # a twelfth, on a grid of twentieths


@pytest.mark.parametrize("seed", range(3))
def test_a_task_that_harms_the_others_gets_its_floor(tmp_path, seed):
    balancer = run(tmp_path, loaders(-1.0, seed), seed)
    assert signs(balancer) == CONFLICT
    assert balancer.shares["c"] == FLOOR


@pytest.mark.slow
def test_signs_are_right_and_steps_move_in_19_of_20_seeds(tmp_path):
    runs = [run(tmp_path, loaders(-1.0, seed), seed) for seed in range(20)]
    assert sum(signs(balancer) == CONFLICT for balancer in runs) >= 19
    assert sum(balancer.shares["c"] == FLOOR for balancer in runs) >= 19


def test_steps_are_sampled_rarely_once_enough_is_known(tmp_path, monkeypatch):
    sampled = []
    see = AffinityMeter.see

    def counted(meter, task, optimizers):
        sampled.append(task)
        see(meter, task, optimizers)

    monkeypatch.setattr(AffinityMeter, "see", counted)
    model = Shared()
    run(tmp_path, loaders(1.0, 0), 0, epochs=30, model=model)
    early = 2 * 3 * 16  # half of the steps are, until each of three tasks met itself 16 times
    late = model.steps - 2 * early
    assert late > 300
    assert len(sampled) < early + late / 16 + 2 * 3 * 6  # and two bursts that were under way


@pytest.mark.parametrize("seed", range(3))
def test_tasks_that_want_the_same_help_each_other(tmp_path, seed):
    balancer = run(tmp_path, loaders(1.0, seed), seed)
    (seen,) = [e for e in balancer.events if isinstance(e, AffinityMeasured)][-1:]
    assert min(value for row in seen.affinity for value in row) > 0.3


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("sign", "share"), [(1.0, 0.85), (-1.0, 0.15)], ids=["help", "harm"])
def test_a_cheap_task_gets_steps_for_what_it_does_for_others(tmp_path, sign, share, seed):
    data = helper_and_main(sign, seed)
    balancer = run(tmp_path, data, seed, weights={"helper": 0.02})
    assert balancer.shares["helper"] == pytest.approx(share)
