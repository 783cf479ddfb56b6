"""Thawing from the head downwards, by the package `finetuning-scheduler`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import lightning.pytorch as pl
from typing_extensions import override

from lightning_attnbal.core import check_number
from lightning_attnbal.measure import discover_units
from recipes.benchmarks.compare.counted import CountedBudget
from recipes.benchmarks.compare.methods._method import Method
from recipes.benchmarks.compare.methods._optional import require

_NEVER = 10**6  # epochs: the budget ends the run, and the shares spent end the phases


@dataclass(frozen=True, kw_only=True)
class ScheduledThaw(Method):
    """The head first; then one unit more, from the top down, at equal shares of the budget.

    Args:
        thaw_share: share of the budget after which everything trains, in (0, 1].

    Raises:
        ModuleNotFoundError: in `callbacks`, without the package `finetuning-scheduler`.

    Source:
        Dale, "Fine-Tuning Scheduler" (the package), 2022; Howard, Ruder, "Universal Language Model
        Fine-tuning for Text Classification" (gradual unfreezing), ACL 2018. Phases end at shares
        of the budget in place of early stopping on validation scores.
    """

    thaw_share: float = 0.5

    def __post_init__(self) -> None:
        check_number("thaw_share", self.thaw_share, low=0, high=1, low_open=True)

    @property
    @override
    def name(self) -> str:
        return f"finetuning-scheduler-{self.thaw_share:g}"

    @override
    def _callbacks(self, budget: CountedBudget) -> list[pl.Callback]:
        return [_make_scheduler(budget, self.thaw_share)]


def _phases(module: pl.LightningModule) -> dict[int, dict[str, Any]]:
    """The package's schedule: a unit per phase, from the top, without what the user froze."""
    trainable = {name for name, p in module.named_parameters() if p.requires_grad}
    found = ([n for n in u.parameters if n in trainable] for u in reversed(discover_units(module)))
    return {
        phase: {"params": names, "max_transition_epoch": _NEVER + phase}  # these have to rise
        for phase, names in enumerate(filter(None, found))
    }


def _make_scheduler(budget: CountedBudget, thaw_share: float) -> pl.Callback:
    """An instance of a subclass, made here because its base may not be installed."""
    package = require("finetuning_scheduler", "finetuning-scheduler")

    class PacedByBudget(package.FinetuningScheduler):  # type: ignore[misc, name-defined]
        """Goes to the next phase when enough of the budget is spent, also within an epoch.

        Hooks beside the parent's: `on_train_start`, `on_train_batch_start`.
        """

        base_lr, num_groups = 0.0, 0

        def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
            self.ft_schedule = _phases(pl_module)
            super().setup(trainer, pl_module, stage)
            trainer.checkpoint_callback.save_top_k = 0  # it brings its own, which would write

        def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            super().on_train_start(trainer, pl_module)
            groups = trainer.optimizers[0].param_groups
            self.base_lr, self.num_groups = float(groups[0]["lr"]), len(groups)

        def should_transition(self, trainer: pl.Trainer) -> bool:  # noqa: ARG002
            share = thaw_share * (self.curr_depth + 1) / max(1, len(self.ft_schedule) - 1)
            return bool(self.depth_remaining > 0 and budget.progress >= share)

        def on_train_batch_start(
            self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
        ) -> None:
            super().on_train_batch_start(trainer, pl_module, batch, batch_idx)
            while self.should_transition(trainer):
                self.on_train_epoch_start(trainer, pl_module)  # where the package takes the step
            groups = trainer.optimizers[0].param_groups
            if len(groups) > self.num_groups:
                self.num_groups = len(groups)
                for group in groups:
                    group["lr"] = self.base_lr
                budget.rebase(trainer)

    return PacedByBudget(epoch_transitions_only=True, restore_best=False)
