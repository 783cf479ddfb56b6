"""Whether a run trained what it said it would: what was to move moved, and nothing else did."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
from torch import nn
from torch.optim import Optimizer
from typing_extensions import override


class Engagement(pl.Callback):
    """Compares the weights before and after each stretch in which the same parameters train.

    A parameter is known by the sum of its entries, in float64. It should move in a stretch if it
    had a gradient at one of its steps at least, and must not if it was frozen throughout.

    Hooks: `on_before_optimizer_step`, `on_train_end`.

    Attributes:
        stretches: how many there were.
        idle: names of parameters that got gradients in a stretch and did not move in it.
        leaked: names of parameters that were frozen in a stretch and moved in it.
    """

    def __init__(self) -> None:
        self.stretches = 0
        self.idle: set[str] = set()
        self.leaked: set[str] = set()
        self._trains: frozenset[str] | None = None
        self._got_gradient: set[str] = set()
        self._sums: dict[str, float] = {}

    def report(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "stretches": self.stretches,
            "idle": sorted(self.idle),
            "leaked": sorted(self.leaked),
        }

    @override
    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        parameters = dict(pl_module.named_parameters())
        trains = frozenset(name for name, p in parameters.items() if p.requires_grad)
        if trains != self._trains:
            self._close(pl_module)
            self._trains, self._sums = trains, _sums(pl_module)
            self.stretches += 1
        for name in trains - self._got_gradient:  # each is looked at until it pulls
            gradient = parameters[name].grad
            if gradient is not None and gradient.any():
                self._got_gradient.add(name)

    @override
    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._close(pl_module)

    def _close(self, module: nn.Module) -> None:
        """A stretch is over."""
        if self._trains is not None:
            now = _sums(module)
            moved = {n for n in now.keys() & self._sums.keys() if now[n] != self._sums[n]}
            self.idle |= self._got_gradient - moved
            self.leaked |= moved - self._trains
        self._got_gradient = set()


def _sums(module: nn.Module) -> dict[str, float]:
    return {n: float(p.detach().double().sum()) for n, p in module.named_parameters()}
