"""The user's own schedulers, paced by budget spent instead of by steps."""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer
from lightning.pytorch.utilities.types import LRSchedulerConfig

from lightning_attnbal.core import check_integer
from lightning_attnbal.trainer._progress import clip_progress


@dataclass
class _Paced:
    """A scheduler taken over from Lightning."""

    config: LRSchedulerConfig
    frequency: int  # the user's
    num_steps: int = 0  # how often it was stepped

    def due(self, total: int, progress: float) -> int:
        """How many steps are due once `progress` of `total` virtual steps (or epochs) is spent."""
        # progress is a quotient of float sums: without the slack, 49 · (1 / 49) would floor to 0
        virtual = math.floor(progress * total * (1 + 1e-9))
        return min(virtual, total) // self.frequency


class SchedulerPacer:
    """Steps the user's schedulers by budget spent, as if the budget were the full run.

    After `advance(p)` each scheduler with interval "step" has been stepped
    floor(p · total_steps) // frequency times, each with interval "epoch"
    floor(p · total_epochs) // frequency times. Steps are taken one by one, so chainable and
    closed-form schedulers stay right, and through the module's `lr_scheduler_step` hook, so an
    overridden one is honoured. `ReduceLROnPlateau` is left to Lightning.

    At full cost per step the learning rates are exactly those of plain Lightning. Only an interval
    "step" with a frequency above 1 may differ: Lightning counts its batches anew in each epoch, we
    count optimizer steps through the run.

    From construction until `release`, Lightning no longer steps these schedulers itself.

    Args:
        trainer: with its strategy set up (from `on_fit_start` on).
        total_steps: optimizer steps of the full run, in [1, inf).
        total_epochs: epochs of the full run, in [1, inf).

    Raises:
        ValueError: a total is below 1, `progress` is NaN, or a saved state has other schedulers.
        MisconfigurationException: the module optimises manually, so it steps its schedulers itself.

    Source:
        Li, Yumer, Ramanan, "Budgeted Training", ICLR 2020 (budget-aware conversion of a schedule).

    Example:
        >>> import torch
        >>> from lightning.pytorch import LightningModule, Trainer
        >>> from lightning.pytorch.utilities.types import LRSchedulerConfig
        >>> from lightning_attnbal.trainer import SchedulerPacer
        >>> optimizer = torch.optim.SGD([torch.zeros(2, requires_grad=True)], lr=1.0)
        >>> halving = torch.optim.lr_scheduler.StepLR(optimizer, step_size=10, gamma=0.5)
        >>> trainer = Trainer(accelerator="cpu", barebones=True)
        >>> trainer.strategy.connect(LightningModule())
        >>> trainer.strategy.lr_scheduler_configs = [LRSchedulerConfig(halving, interval="step")]
        >>> pacer = SchedulerPacer(trainer, total_steps=40, total_epochs=4)
        >>> pacer.advance(0.5)
        >>> halving.last_epoch, optimizer.param_groups[0]["lr"]
        (20, 0.25)
    """

    def __init__(self, trainer: Trainer, total_steps: int, total_epochs: int) -> None:
        self._totals = {
            "step": check_integer("total_steps", total_steps, low=1),
            "epoch": check_integer("total_epochs", total_epochs, low=1),
        }
        self._module = trainer.lightning_module
        if not self._module.automatic_optimization:
            msg = (
                "Expected `automatic_optimization` to be True where schedulers are paced, but got "
                "False: a module that optimises manually steps its schedulers itself."
            )
            raise MisconfigurationException(msg)
        self._paced = [
            _Paced(config, _set_frequency(config, sys.maxsize))
            for config in trainer.lr_scheduler_configs
            if not config.reduce_on_plateau and config.interval in self._totals
        ]

    def advance(self, progress: float) -> None:
        """Step each scheduler to where `progress`, the share of budget spent, asks; never back."""
        share = clip_progress(progress)
        for paced in self._paced:
            due = paced.due(self._totals[paced.config.interval], share)
            with _ignore_order_warning():
                while paced.num_steps < due:
                    self._module.lr_scheduler_step(paced.config.scheduler, None)
                    paced.num_steps += 1

    def release(self) -> None:
        """Hand the schedulers back to Lightning."""
        for paced in self._paced:
            _set_frequency(paced.config, paced.frequency)
        self._paced = []

    def state_dict(self) -> dict[str, Any]:
        """How often each scheduler was stepped; the schedulers' own state is saved by Lightning."""
        return {"num_steps": [paced.num_steps for paced in self._paced]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue counting where the schedulers, restored by Lightning, stand."""
        counts = state["num_steps"]
        if len(counts) != len(self._paced):
            msg = (
                f"Expected the state of {len(self._paced)} paced schedulers, but got {len(counts)}."
            )
            raise ValueError(msg)
        for paced, count in zip(self._paced, counts, strict=True):
            paced.num_steps = check_integer("num_steps", count, low=0)


def _set_frequency(config: LRSchedulerConfig, frequency: int) -> int:
    """Set how often Lightning steps a scheduler; return what it was. Our one grip on Lightning.

    Lightning steps when `batch_idx + 1` (or `epoch + 1`) is a multiple of the frequency, so
    `sys.maxsize` means never.
    """
    before = config.frequency
    config.frequency = frequency
    return before


@contextmanager
def _ignore_order_warning() -> Iterator[None]:
    """Hide torch's advice on call order: the budget, not a training step, moves the schedule."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Detected call of `lr_scheduler\.step\(\)` before")
        yield
