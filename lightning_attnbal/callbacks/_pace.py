"""Which learning-rate pacing a run gets."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Protocol

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer

from lightning_attnbal.callbacks._ledger import Ledger
from lightning_attnbal.trainer import BudgetLR, Schedule, SchedulerPacer, make_schedule


class Pace(Protocol):
    """Moves the learning rate to where the share of budget spent says it should be."""

    def advance(self, progress: float, step: float) -> None:
        """Go to `progress` in [0, 1]; the coming step is a share `step` of the run."""

    def release(self) -> None:
        """Hand the learning rate back."""

    def state_dict(self) -> dict[str, Any]:
        """Plain data for a checkpoint."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave."""


class Untouched:
    """The learning rate is nobody's business but the user's."""

    def advance(self, progress: float, step: float) -> None:
        """Do nothing."""

    def release(self) -> None:
        """Do nothing."""

    def state_dict(self) -> dict[str, Any]:
        """Nothing to save."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Nothing to restore."""


class Scheduled(BudgetLR):
    """A schedule over budget spent, the same hooks as `SchedulerPacer`.

    A step gets the learning rate of its middle: neither the first one of a warm-up nor the last one
    before the floor is taken at a rate of 0.
    """

    def advance(self, progress: float, step: float) -> None:
        """Go to `progress` in [0, 1]; the coming step is a share `step` of the run."""
        self.set(min(1.0, progress + step / 2) if progress < 1 else 1.0)

    def release(self) -> None:
        """Leave the learning rates where the schedule ended, as a scheduler would."""


class Paced(SchedulerPacer):
    """The module's own schedulers, which say themselves what the first step gets."""

    def advance(self, progress: float, step: float = 0.0) -> None:  # noqa: ARG002
        """Go to `progress` in [0, 1]."""
        super().advance(progress)


def make_pace(
    trainer: Trainer, lr_schedule: str | Schedule | None, warmup: float, ledger: Ledger
) -> Pace:
    """The pacing for this run.

    * a schedule by name or object: that one, over budget spent;
    * "auto": nothing if the budget is the whole run; the user's own schedulers, paced by budget
      spent, if there are any and the full run has an end; else linear to 0;
    * None: nothing.

    Raises:
        MisconfigurationException: a schedule was asked for and the module brings its own.
    """
    own = [c for c in trainer.lr_scheduler_configs if not c.reduce_on_plateau]
    if lr_schedule is None or (lr_schedule == "auto" and ledger.is_unrestricted):
        return Untouched()
    if lr_schedule != "auto":
        if own:
            msg = (
                f"Expected no learning-rate scheduler in `configure_optimizers` with "
                f"lr_schedule={lr_schedule!r}, but got {type(own[0].scheduler).__name__}. Remove "
                "it, or pass lr_schedule='auto' to have it paced by budget spent."
            )
            raise MisconfigurationException(msg)
        return Scheduled(trainer.optimizers, make_schedule(lr_schedule, warmup))
    if not own:
        return Scheduled(trainer.optimizers, make_schedule("linear", warmup))
    if ledger.full_batches is None:
        return Untouched()
    epochs = max(1, math.ceil(ledger.full_batches / trainer.num_training_batches))
    steps = max(1, math.ceil(ledger.full_batches / trainer.accumulate_grad_batches))
    if trainer.max_epochs not in {None, -1} and trainer.max_steps == -1:
        per_epoch = math.ceil(trainer.num_training_batches / trainer.accumulate_grad_batches)
        steps = per_epoch * trainer.max_epochs
    return Paced(trainer, total_steps=steps, total_epochs=epochs)
