"""Paced schedulers against their own curve, sampled at the virtual step."""

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.types import LRSchedulerConfig
from torch.optim import lr_scheduler as schedulers

from lightning_attnbal.trainer import SchedulerPacer

TOTAL = 40
MAKERS = {
    "StepLR": lambda o: schedulers.StepLR(o, step_size=7, gamma=0.5),
    "CosineAnnealingLR": lambda o: schedulers.CosineAnnealingLR(o, T_max=TOTAL),
    "OneCycleLR": lambda o: schedulers.OneCycleLR(o, max_lr=1.0, total_steps=TOTAL),
    "LambdaLR": lambda o: schedulers.LambdaLR(o, lambda step: 1 / (1 + step)),
    "SequentialLR": lambda o: schedulers.SequentialLR(
        o,
        [schedulers.LinearLR(o, 0.1, total_iters=5), schedulers.ExponentialLR(o, 0.9)],
        milestones=[5],
    ),
}


class Module:
    """What the pacer needs of a LightningModule."""

    automatic_optimization = True

    def __init__(self):
        self.stepped = []

    def lr_scheduler_step(self, scheduler, metric):
        self.stepped.append(scheduler)
        scheduler.step()


def make_optimizer():
    return torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.3, momentum=0.9)


def make_trainer(*configs):
    return SimpleNamespace(lightning_module=Module(), lr_scheduler_configs=list(configs))


def make_paced(maker, interval="step", frequency=1, total_epochs=4):
    optimizer = make_optimizer()
    config = LRSchedulerConfig(maker(optimizer), interval=interval, frequency=frequency)
    return optimizer, SchedulerPacer(make_trainer(config), TOTAL, total_epochs), config


def own_curve(maker):
    optimizer = make_optimizer()
    optimizer.step()
    scheduler = maker(optimizer)
    optimizer.step()
    curve = [optimizer.param_groups[0]["lr"]]
    for _ in range(TOTAL):
        scheduler.step()
        curve.append(optimizer.param_groups[0]["lr"])
    return curve


@pytest.mark.parametrize("maker", MAKERS.values(), ids=MAKERS)
@pytest.mark.parametrize(
    "progress",
    [
        [k / TOTAL for k in range(1, TOTAL + 1)],
        [0.0, 0.013, 0.1, 0.1, 0.101, 0.48, 0.9, 0.97, 1.0, 1.02],
        [k / 163 for k in range(164)],
        [1.0],
    ],
    ids=["every step", "leaps and halts", "slower than steps", "at once"],
)
def test_follows_its_own_curve(maker, progress):
    optimizer, pacer, _ = make_paced(maker)
    curve = own_curve(maker)
    for share in progress:
        pacer.advance(share)
        virtual = min(int(share * TOTAL + 1e-6), TOTAL)
        assert optimizer.param_groups[0]["lr"] == curve[virtual]


@settings(max_examples=50)
@given(total=st.integers(1, 5000), data=st.data())
def test_the_quotient_of_steps_is_exactly_that_step(total, data):
    step = data.draw(st.integers(0, total))
    scheduler = schedulers.LambdaLR(make_optimizer(), lambda k: 1.0)
    config = LRSchedulerConfig(scheduler, interval="step")
    SchedulerPacer(make_trainer(config), total, 1).advance(step / total)
    assert scheduler.last_epoch == step


@pytest.mark.parametrize(
    ("interval", "frequency", "progress", "steps"),
    [
        ("step", 1, 0.5, 20),
        ("step", 3, 0.5, 6),
        ("epoch", 1, 0.5, 2),
        ("epoch", 1, 0.74, 2),
        ("epoch", 1, 0.75, 3),
        ("epoch", 2, 0.99, 1),
        ("epoch", 1, 5.0, 4),
        ("step", 1, -0.5, 0),
    ],
)
def test_interval_and_frequency(interval, frequency, progress, steps):
    _, pacer, config = make_paced(MAKERS["LambdaLR"], interval, frequency)
    pacer.advance(progress)
    assert config.scheduler.last_epoch == steps


def test_budget_spent_never_runs_backwards():
    _, pacer, config = make_paced(MAKERS["StepLR"])
    pacer.advance(0.5)
    pacer.advance(0.25)
    assert config.scheduler.last_epoch == 20


def test_steps_through_the_hook_of_the_module():
    config = LRSchedulerConfig(MAKERS["StepLR"](make_optimizer()), interval="step")
    trainer = make_trainer(config)
    SchedulerPacer(trainer, TOTAL, 4).advance(0.05)
    assert trainer.lightning_module.stepped == [config.scheduler] * 2


def test_plateau_is_left_to_lightning():
    plateau = schedulers.ReduceLROnPlateau(make_optimizer())
    config = LRSchedulerConfig(plateau, reduce_on_plateau=True, monitor="loss", frequency=2)
    pacer = SchedulerPacer(make_trainer(config), TOTAL, 4)
    pacer.advance(1.0)
    assert config.frequency == 2
    assert plateau.last_epoch == 0
    assert pacer.state_dict() == {"num_steps": []}


def test_release_restores_the_frequency_and_stops_pacing():
    _, pacer, config = make_paced(MAKERS["StepLR"], frequency=3)
    assert config.frequency > 10**9
    pacer.release()
    pacer.release()
    pacer.advance(1.0)
    assert config.frequency == 3
    assert config.scheduler.last_epoch == 0


@pytest.mark.parametrize("maker", MAKERS.values(), ids=MAKERS)
def test_resume_continues_the_curve(maker):
    _, pacer, config = make_paced(maker)
    pacer.advance(0.4)
    saved, scheduler_state = pacer.state_dict(), config.scheduler.state_dict()
    optimizer_state = config.scheduler.optimizer.state_dict()

    optimizer, resumed, again = make_paced(maker)
    optimizer.load_state_dict(optimizer_state)
    again.scheduler.load_state_dict(scheduler_state)
    resumed.load_state_dict(saved)
    resumed.advance(0.4)
    assert optimizer.param_groups[0]["lr"] == own_curve(maker)[16]
    resumed.advance(0.6)
    assert optimizer.param_groups[0]["lr"] == own_curve(maker)[24]


def test_refusals():
    _, pacer, config = make_paced(MAKERS["StepLR"])
    with pytest.raises(ValueError, match="state of 1 paced schedulers, but got 2"):
        pacer.load_state_dict({"num_steps": [1, 2]})
    with pytest.raises(ValueError, match=r"`progress` to be in \[0, 1\], but got nan"):
        pacer.advance(float("nan"))
    with pytest.raises(ValueError, match=r"`total_steps` to be in \[1, inf\), but got 0"):
        SchedulerPacer(make_trainer(config), 0, 1)
    with pytest.raises(TypeError, match="`total_epochs` to be an integer, but got inf"):
        SchedulerPacer(make_trainer(config), 1, float("inf"))
    manual = make_trainer(config)
    manual.lightning_module.automatic_optimization = False
    with pytest.raises(MisconfigurationException, match="steps its schedulers itself"):
        SchedulerPacer(manual, 1, 1)
