"""Contributions that are not debiased, for an ablation."""

from __future__ import annotations

from collections.abc import Sequence

import lightning.pytorch as pl
import torch
from torch import nn
from typing_extensions import override

from lightning_attnbal import AttentionBalancer
from lightning_attnbal.core import Unit
from lightning_attnbal.measure import Contribution, CrossBatchMeter, GradientUpdateMeter


class SameBatch(pl.Callback):
    """Contributions as gradient times update on the batch that gave the update: biased upwards.

    Reaches into the run, as no user is meant to choose this.
    """

    def __init__(self, balancer: AttentionBalancer) -> None:
        self.balancer = balancer

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        run = self.balancer._run
        assert run is not None
        run.session.worth._meter = _SameBatchMeter(pl_module, self.balancer.units)


class _SameBatchMeter(CrossBatchMeter):
    """`GradientUpdateMeter` where the other one is expected."""

    def __init__(self, model: nn.Module, units: Sequence[Unit]) -> None:
        super().__init__(model, units)
        self._naive = GradientUpdateMeter(model, units)

    @property
    @override
    def is_pending(self) -> bool:
        return False

    @override
    def before_step(self, *, starts: bool, optimizers: Sequence[torch.optim.Optimizer]) -> None:
        if starts:
            self._naive.before_step()

    @override
    def after_step(self, optimizers: Sequence[torch.optim.Optimizer]) -> None:
        self._naive.after_step(optimizers)

    @override
    def compute(self) -> dict[str, Contribution]:
        return self._naive.compute()
