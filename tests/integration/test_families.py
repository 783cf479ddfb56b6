"""The callback on models of every kind."""

from __future__ import annotations

import lightning.pytorch as pl
import pytest
import torch
from torch.utils.data import DataLoader

from lightning_attnbal.callbacks import AttentionBalancer
from tests.families import FAMILIES, Family

NAMES = ("bert", "gpt2", "t5", "timm_convnext", "tv_resnet18", "lstm_attention", "cnn_sequential")


class Wrapped(pl.LightningModule):
    """A user's module around a family's model; its batches are numbers, its data the family's."""

    def __init__(self, family: Family) -> None:
        super().__init__()
        self.model = family.build()
        self._family, self._batch = family, family.batch()

    def training_step(self, batch):
        return self._family.loss(self.model, self._batch)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=1e-3, momentum=0.9, weight_decay=0.1)


@pytest.mark.parametrize("levels", [("frozen", "full"), ("frozen", "detached", "full")])
@pytest.mark.parametrize("name", NAMES)
def test_budget_is_met_and_frozen_units_stay(tmp_path, name, levels):
    module = Wrapped(FAMILIES[name])
    balancer = AttentionBalancer(budget="50%", levels=levels, lr_schedule=None)
    states = []

    class Watch(pl.Callback):
        def on_train_batch_end(self, trainer, pl_module, *args):
            states.append({n: t.clone() for n, t in pl_module.state_dict().items()})

    trainer = pl.Trainer(
        max_epochs=1,
        callbacks=[Watch(), balancer],
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )
    trainer.fit(module, DataLoader(range(30)))
    last = balancer.history[-1]
    assert 0.9 <= balancer.spent / balancer.limit <= 1
    assert last.plan.trained
    for unit in balancer.units:
        moved = [
            n for n in unit.parameters if not torch.equal(states[last.step - 1][n], states[-1][n])
        ]
        assert not moved or last.plan[unit.name].is_trained
