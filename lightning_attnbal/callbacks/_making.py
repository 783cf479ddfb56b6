"""From a callback's settings and a Trainer to a run."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import lightning.pytorch as pl

from lightning_attnbal.allocate import Allocator
from lightning_attnbal.apply.cache import CacheSettings
from lightning_attnbal.callbacks._ledger import Ledger
from lightning_attnbal.callbacks._replay import Replay
from lightning_attnbal.callbacks._run import Run
from lightning_attnbal.callbacks._session import Session
from lightning_attnbal.callbacks._task_plans import TaskPlans
from lightning_attnbal.callbacks._task_ranks import Ranks, refuse_uneven
from lightning_attnbal.callbacks._task_run import TaskRun
from lightning_attnbal.callbacks._task_settings import TaskSettings
from lightning_attnbal.callbacks._timing import StepClock
from lightning_attnbal.core import Budget, Dimension, Level
from lightning_attnbal.measure import UnitSpec, discover_units
from lightning_attnbal.multitask import AffinityMeter
from lightning_attnbal.trainer import RateRule, TaskData

_STRIDE = 4  # rows of which the affinity meter reads one: half the time (figures: multitask/README)


@dataclass(frozen=True, kw_only=True)
class RunMaker:
    """Makes the run of a fit. The arguments are those of `AttentionBalancer`."""

    budget: Budget
    units: UnitSpec
    allocator: Allocator
    levels: Sequence[Level]
    cache: CacheSettings
    moments: Literal["keep", "drop"]
    lr_scaling: RateRule | None
    calibration_steps: int
    replay: Replay | None
    tasks: TaskSettings | None

    @property
    def _is_on_ranks(self) -> bool:
        return self.tasks is not None and self.tasks.parallel == "ranks"

    def make(
        self,
        trainer: pl.Trainer,
        module: pl.LightningModule,
        clock: StepClock,
        serving: TaskData | None = None,
    ) -> Run:
        """A run of one task, or of those that are served.

        Raises:
            ValueError: the settings name tasks that the data does not have.
        """
        units = discover_units(module, self.units)
        replay = copy.copy(self.replay)
        if replay is not None:
            replay.refuse_other_run(units, self.levels)
        ledger = Ledger(budget=self.budget, full_batches=None)
        may_cache = not ledger.is_unrestricted or (replay is not None and replay.caches)
        ranks = Ranks(trainer.world_size if self._is_on_ranks else 1)
        cache = self.cache if may_cache and ranks.size == 1 else None
        is_timed = self.budget.dimension is Dimension.SECOND
        model = (module, units, trainer.optimizers, self.levels, self.moments, cache)
        session = Session(*model, is_timed=is_timed)
        session.counts_backward = not ledger.is_unrestricted
        common: dict[str, Any] = {
            "ledger": ledger,
            "session": session,
            "clock": clock,
            "allocator": self.allocator,
            "replay": replay,
            "rate_rule": self.lr_scaling,
            "calibration_steps": self.calibration_steps,
            "batches_per_step": trainer.accumulate_grad_batches * ranks.size,
            "ranks": ranks,
        }
        if serving is None or self.tasks is None or self.tasks.parallel == "heads":
            return Run(**common)
        loader = serving.loader
        assert loader is not None
        refuse_uneven(loader, ranks)
        self.tasks.check_tasks(loader.data_shares)
        beside = (Session(*model, is_timed=is_timed, beside=session) for _ in loader.tasks[1:])
        return TaskRun(
            **common,
            serving=serving,
            sessions=dict(zip(loader.tasks, (session, *beside), strict=True)),
            affinity=AffinityMeter(module, units, loader.tasks, stride=_STRIDE),
            planner=TaskPlans(settings=self.tasks, tasks=loader.tasks),
        )
