"""Pacing inside a real `Trainer.fit`: the degenerate case equals plain Lightning."""

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.optim import lr_scheduler as schedulers
from torch.utils.data import DataLoader

from lightning_attnbal.trainer import SchedulerPacer

EPOCHS, BATCHES = 3, 6
pytestmark = pytest.mark.filterwarnings(
    "ignore:The 'train_dataloader' does not have many workers",
    "ignore:The number of training batches",
    "ignore:.isinstance.treespec, LeafSpec.. is deprecated:FutureWarning",
)


class Tiny(LightningModule):
    def __init__(self, maker, interval):
        super().__init__()
        self.layer = torch.nn.Linear(2, 1)
        self.maker, self.interval = maker, interval

    def training_step(self, batch, batch_idx):
        return self.layer(batch).square().mean()

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)
        config = {"scheduler": self.maker(optimizer), "interval": self.interval}
        return {"optimizer": optimizer, "lr_scheduler": config}


class Watch(Callback):
    """Notes the learning rate every optimizer step really used."""

    def __init__(self):
        self.lrs = []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.lrs.append(optimizer.param_groups[0]["lr"])


class Pace(Callback):
    """Advances the pacer as if every optimizer step cost `cost` of a budget of `total_steps`."""

    def __init__(self, total_steps, cost=1.0):
        self.total_steps, self.cost, self.saved = total_steps, cost, None

    def on_fit_start(self, trainer, pl_module):
        self.pacer = SchedulerPacer(trainer, self.total_steps, EPOCHS)
        if self.saved is not None:
            self.pacer.load_state_dict(self.saved)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.pacer.advance(trainer.global_step * self.cost / self.total_steps)

    def state_dict(self):
        return self.pacer.state_dict()

    def load_state_dict(self, state_dict):
        self.saved = state_dict


def fit(model, *callbacks, epochs=EPOCHS, path, ckpt_path=None, **kwargs):
    torch.manual_seed(0)
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=path,
        callbacks=list(callbacks),
        **kwargs,
    )
    data = DataLoader(torch.arange(2.0 * BATCHES).reshape(BATCHES, 2) / 10, batch_size=1)
    trainer.fit(model, data, ckpt_path=ckpt_path, weights_only=False if ckpt_path else None)
    return trainer


MAKERS = {
    "OneCycleLR": lambda o: schedulers.OneCycleLR(o, max_lr=0.5, total_steps=EPOCHS * BATCHES),
    "StepLR": lambda o: schedulers.StepLR(o, step_size=2, gamma=0.5),
    "CosineAnnealingLR": lambda o: schedulers.CosineAnnealingLR(o, T_max=EPOCHS * BATCHES),
}


@pytest.mark.parametrize(
    ("name", "interval"),
    [
        ("OneCycleLR", "step"),
        ("StepLR", "step"),
        ("CosineAnnealingLR", "step"),
        ("StepLR", "epoch"),
        ("CosineAnnealingLR", "epoch"),
    ],
)
def test_full_cost_equals_plain_lightning(name, interval, tmp_path):
    maker = MAKERS[name]
    plain, paced = Watch(), Watch()
    reference = Tiny(maker, interval)
    start = {name: value.clone() for name, value in reference.state_dict().items()}
    fit(reference, plain, path=tmp_path)
    model = Tiny(maker, interval)
    model.load_state_dict(start)
    fit(model, paced, Pace(EPOCHS * BATCHES), path=tmp_path)
    assert paced.lrs == plain.lrs
    assert len(plain.lrs) == EPOCHS * BATCHES
    assert torch.equal(model.layer.weight, reference.layer.weight)


def test_full_cost_equals_plain_lightning_when_accumulating(tmp_path):
    maker = MAKERS["StepLR"]
    plain, paced = Watch(), Watch()
    fit(Tiny(maker, "step"), plain, path=tmp_path, accumulate_grad_batches=4)
    pace = Pace(EPOCHS * 2)
    fit(Tiny(maker, "step"), paced, pace, path=tmp_path, accumulate_grad_batches=4)
    assert paced.lrs == plain.lrs == [0.1, 0.1, 0.05, 0.05, 0.025, 0.025]


def test_half_the_cost_walks_half_the_curve(tmp_path):
    paced = Watch()
    fit(Tiny(MAKERS["StepLR"], "step"), paced, Pace(EPOCHS * BATCHES, cost=0.5), path=tmp_path)
    assert paced.lrs == [0.1 * 0.5 ** (step // 4) for step in range(EPOCHS * BATCHES)]


def test_crash_and_resume_equals_one_run(tmp_path):
    maker, total = MAKERS["OneCycleLR"], EPOCHS * BATCHES
    whole, first, second = Watch(), Watch(), Watch()
    fit(Tiny(maker, "step"), whole, Pace(total, cost=0.7), path=tmp_path)
    trainer = fit(Tiny(maker, "step"), first, Pace(total, cost=0.7), epochs=1, path=tmp_path)
    trainer.save_checkpoint(tmp_path / "end.ckpt")
    resumed = Tiny(maker, "step")
    pace = Pace(total, cost=0.7)
    fit(resumed, second, pace, path=tmp_path, ckpt_path=tmp_path / "end.ckpt")
    assert first.lrs + second.lrs == whole.lrs


def test_lightning_steps_again_after_release(tmp_path):
    class Drop(Pace):
        def on_train_epoch_start(self, trainer, pl_module):
            if trainer.current_epoch == 1:
                self.pacer.release()

    watch = Watch()
    fit(Tiny(MAKERS["StepLR"], "step"), watch, Drop(EPOCHS * BATCHES, cost=0.0), path=tmp_path)
    rate = [0.1] * BATCHES + [0.1 * 0.5 ** (step // 2) for step in range(2 * BATCHES)]
    assert watch.lrs == rate
