"""Each bad input gives one clear error before training starts, or a documented outcome."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.callbacks import GradientAccumulationScheduler
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn

from lightning_attnbal.callbacks import AttentionBalancer
from lightning_attnbal.core import InfeasibleBudgetError, UnsupportedModelError
from lightning_attnbal.tracking import ContributionMeasured
from tests.integration.tiny import Classifier, fit, same, weights

ARGUMENTS: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "negative time": ({"budget": "-3h"}, ValueError, r"`budget` to be in \(0, inf\).*-3 h"),
    "negative with a minus sign": ({"budget": "\N{MINUS SIGN}3h"}, ValueError, "-3 h"),
    "zero": ({"budget": 0}, ValueError, r"\(0, 1\]"),
    "zero percent": ({"budget": "0%"}, ValueError, r"\(0, 1\]"),
    "above one": ({"budget": 1.4}, ValueError, "140%"),
    "above hundred percent": ({"budget": "101%"}, ValueError, "101%"),
    "forgotten percent sign": ({"budget": "40"}, ValueError, r"\(0, 1\]"),
    "not a number": ({"budget": float("nan")}, ValueError, "nan"),
    "infinite": ({"budget": float("inf")}, ValueError, "inf"),
    "infinite text": ({"budget": "1e999 FLOP"}, ValueError, "inf"),
    "unknown unit": ({"budget": "3 parsec"}, ValueError, "parsec"),
    "a rate": ({"budget": "3 TFLOP/s"}, ValueError, "number with a unit"),
    "words": ({"budget": "a lot"}, ValueError, "number with a unit"),
    "empty text": ({"budget": ""}, ValueError, "number with a unit"),
    "no budget": ({"budget": None}, TypeError, "NoneType"),
    "a bool": ({"budget": True}, TypeError, "bool"),
    "a list": ({"budget": ["40%"]}, TypeError, "list"),
    "bytes as budget": ({"budget": "6GiB"}, ValueError, "memory="),
    "time as memory": ({"budget": 0.5, "memory": "2h"}, ValueError, "bytes"),
    "share as memory": ({"budget": 0.5, "memory": 0.5}, ValueError, "bytes"),
    "negative memory": ({"budget": 0.5, "memory": "-1GiB"}, ValueError, "memory"),
    "unknown level": ({"budget": 0.5, "levels": ["warm"]}, ValueError, "cached, frozen"),
    "levels as text": ({"budget": 0.5, "levels": "full"}, TypeError, "sequence"),
    "no level trains": ({"budget": 0.5, "levels": ["frozen"]}, ValueError, "trains"),
    "no levels": ({"budget": 0.5, "levels": []}, ValueError, "trains"),
    "cache of the wrong type": ({"budget": 0.5, "cache": "2GiB"}, TypeError, "CacheSettings"),
    "lora level": ({"budget": 0.5, "levels": ["lora8", "full"]}, ValueError, "lora8"),
    "lora without rank": ({"budget": 0.5, "levels": ["lora", "full"]}, ValueError, "rank"),
    "unknown schedule": ({"budget": 0.5, "lr_schedule": "lineer"}, ValueError, "linear"),
    "warm-up of everything": ({"budget": 0.5, "warmup": 1.0}, ValueError, "warmup"),
    "negative warm-up": ({"budget": 0.5, "warmup": -0.1}, ValueError, "warmup"),
    "unknown moments policy": ({"budget": 0.5, "moments": "lose"}, ValueError, "keep"),
    "no calibration": ({"budget": 0.5, "calibration_steps": 0}, ValueError, "calibration_steps"),
    "half a step": ({"budget": 0.5, "calibration_steps": 1.5}, TypeError, "calibration_steps"),
    "negative seed": ({"budget": 0.5, "seed": -1}, ValueError, "seed"),
    "allocator by name": ({"budget": 0.5, "allocator": "exact"}, TypeError, "Allocator"),
}


@pytest.mark.parametrize("case", ARGUMENTS)
def test_argument_is_refused_at_construction(case):
    arguments, error, message = ARGUMENTS[case]
    with pytest.raises(error, match=message):
        AttentionBalancer(**arguments)


class Manual(Classifier):
    """Optimises by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False


class Empty(LightningModule):
    """Has no parameters."""

    def training_step(self, batch, batch_idx):
        return torch.zeros((), requires_grad=True)

    def validation_step(self, batch, batch_idx):
        pass

    def configure_optimizers(self):
        return torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)


def all_frozen() -> Classifier:
    return Classifier().requires_grad_(False)


def compiled() -> Classifier:
    model = Classifier()
    model.encoder = torch.compile(model.encoder)
    return model


SET_UPS: dict[str, tuple[dict[str, Any], dict[str, Any], type[Exception], str]] = {
    "manual optimization": ({}, {"model": Manual()}, MisconfigurationException, "automatic_opt"),
    "compiled model": ({}, {"model": compiled()}, MisconfigurationException, "compile"),
    "min_epochs": ({}, {"min_epochs": 2}, MisconfigurationException, "upper bound"),
    "min_steps": ({}, {"min_steps": 2}, MisconfigurationException, "upper bound"),
    "share of an endless run": ({}, {"max_epochs": -1}, MisconfigurationException, "max_epochs"),
    "two balancers": (
        {},
        {"callbacks": [AttentionBalancer(budget=0.5)]},
        (MisconfigurationException, RuntimeError),
        "one AttentionBalancer|state_key",
    ),
    "accumulation that changes": (
        {},
        {"callbacks": [GradientAccumulationScheduler({1: 2})]},
        MisconfigurationException,
        "accumulate_grad_batches",
    ),
    "schedule and scheduler": (
        {"lr_schedule": "linear"},
        {"model": Classifier(scheduler="step")},
        MisconfigurationException,
        "LinearLR",
    ),
    "unknown module": ({"units": ["encodr.layers.*"]}, {}, ValueError, "encodr"),
    "nothing trainable": ({}, {"model": all_frozen()}, UnsupportedModelError, "requires_grad"),
    "model without parameters": ({}, {"model": Empty()}, UnsupportedModelError, "parameter"),
    "budget below one step": ({"budget": "5 FLOP"}, {}, InfeasibleBudgetError, "at least"),
    "share below one step": ({"budget": 1e-6}, {}, InfeasibleBudgetError, "at least"),
    "memory below the weights": ({"memory": "1KiB"}, {}, ValueError, "memory"),
    "and under a time budget": (
        {"budget": "1h", "memory": "1KiB"},
        {},
        ValueError,
        "memory",
    ),
    "and with all the compute": ({"budget": "100%", "memory": "1KiB"}, {}, ValueError, "memory"),
}


@pytest.mark.parametrize("case", SET_UPS)
def test_set_up_is_refused_before_a_weight_moves(tmp_path, case):
    arguments, options, error, message = SET_UPS[case]
    options = dict(options)
    model = options.pop("model", None) or Classifier()
    before = weights(model)
    flags = [p.requires_grad for p in model.parameters()]
    with pytest.raises(error, match=message):
        fit(tmp_path, AttentionBalancer(**{"budget": 0.5, **arguments}), model=model, **options)
    assert same(weights(model), before)
    assert [p.requires_grad for p in model.parameters()] == flags
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


class NanLoss(Classifier):
    """Its loss is NaN from the start."""

    def training_step(self, batch, batch_idx):
        return super().training_step(batch, batch_idx) * float("nan")


def test_nan_loss_neither_stops_the_run_nor_enters_a_decision(tmp_path):
    balancer = AttentionBalancer(budget=0.5)
    fit(tmp_path, balancer, model=NanLoss())
    assert balancer.spent <= balancer.limit
    measured = [e for e in balancer.events if isinstance(e, ContributionMeasured)]
    assert {value for event in measured for value in event.values.values()} == {0.0}


class SkipsBatches(Classifier):
    """Returns no loss for every other batch, which Lightning allows."""

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        return loss if batch_idx % 2 else None


@pytest.mark.filterwarnings("ignore:`training_step` returned `None`")
def test_skipped_batches_are_charged_and_the_run_ends(tmp_path):
    balancer = AttentionBalancer(budget=0.5)
    fit(tmp_path, balancer, model=SkipsBatches(), num_batches=20)
    assert 0 < balancer.spent / balancer.limit <= 1


def test_fast_dev_run_is_left_alone(tmp_path):
    balancer = AttentionBalancer(budget=0.5)
    fit(tmp_path, balancer, fast_dev_run=True)
    assert balancer.plan is None
    assert balancer.spent.amount == 0


def test_foreign_checkpoint_state_is_refused():
    with pytest.raises(ValueError, match=r"state of version \d+, but .* version 99"):
        AttentionBalancer(budget=0.5).load_state_dict({"version": 99})
