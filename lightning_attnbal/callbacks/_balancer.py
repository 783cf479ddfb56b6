"""The callback: gathers inputs, lets the run decide, applies, logs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import lightning.pytorch as pl
from torch.optim import Optimizer
from typing_extensions import override

from lightning_attnbal.allocate import Allocator, ForecastAllocator
from lightning_attnbal.apply.cache import CacheSettings
from lightning_attnbal.callbacks._arguments import check_levels, check_rule, instance
from lightning_attnbal.callbacks._fit import Fit
from lightning_attnbal.callbacks._making import RunMaker
from lightning_attnbal.callbacks._pace import make_pace
from lightning_attnbal.callbacks._probes import Probes
from lightning_attnbal.callbacks._publish import make_publisher
from lightning_attnbal.callbacks._recording import RunRecord
from lightning_attnbal.callbacks._refuse import (
    full_run_batches,
    refuse_endless_share,
    refuse_no_validation,
    refuse_other_allocator,
    refuse_other_data,
    refuse_unsupported,
)
from lightning_attnbal.callbacks._replay import Replay
from lightning_attnbal.callbacks._run import Run
from lightning_attnbal.callbacks._stopwatch import (
    ACTIVATION,
    DATA,
    FORWARD,
    OPTIMIZER,
    OTHER,
    VALIDATION,
    Stopwatch,
    timed,
)
from lightning_attnbal.callbacks._task_bursts import BURST
from lightning_attnbal.callbacks._task_ranks import refuse_ranks
from lightning_attnbal.callbacks._task_settings import TaskSettings
from lightning_attnbal.callbacks._timing import StepClock
from lightning_attnbal.callbacks._view import RunView
from lightning_attnbal.core import (
    Budget,
    Level,
    Quantity,
    check_choice,
    check_integer,
    check_number,
)
from lightning_attnbal.measure import UnitSpec
from lightning_attnbal.planning import CALIBRATION_STEPS
from lightning_attnbal.trainer import (
    RateRule,
    Schedule,
    TaskData,
    make_schedule,
    serve_tasks,
)

_STATE_VERSION = 6


class AttentionBalancer(RunView):
    """Trains within a budget: measures what each unit costs and is worth, re-decides who trains.

    The first `calibration_steps` optimizer steps train everything and are charged; then, and at the
    end of each epoch, the allocation is solved again for what is left of the budget. Training stops
    before the step that would exceed it.

    A budget of 100 % changes nothing: the run is the user's own, bit for bit.

    Hooks: `setup`, `on_fit_start`, `on_train_start`, `on_train_epoch_start`,
    `on_train_batch_start`, `on_before_backward`, `on_after_backward`, `on_before_optimizer_step`,
    `on_train_batch_end`, `on_validation_start`, `on_validation_end`, `on_train_epoch_end`,
    `on_train_end`, `on_exception`, `teardown`. Inert in sanity checking, `fast_dev_run` and the
    Tuner's mini-fits. A loss that is NaN neither stops the run nor enters a decision.

    Args:
        budget: "40%" or 0.4 of the full run's FLOPs, "45min", "2h", "2e15 FLOP", "3 PFLOP". FLOPs
            are those of training steps (validation is not charged); a time is the wall clock of
            the whole fit, validation included.
        memory: peak bytes of training state and saved activations, such as "6GiB".
        units: what gets a level: module names, glob patterns, a mapping or a function
            (see `discover_units`); None finds the repeated blocks.
        allocator: turns menus and budget into a plan; default `ForecastAllocator()`. With tasks
            that take turns it, of which `prior` and `thaw_margin` count, or `FullAllocator()`:
            their plans are decided together.
        levels: which levels a unit may get: "cached", "frozen", "full", and on request "detached"
            and "local", which cut residual branches: cheaper, at the price of a biased gradient
            below.
        cache: room and precision for what cached units computed; default `CacheSettings()`, a
            quarter of the free memory, exact.
        lr_schedule: "linear", "cosine", "rex" or a `Schedule`, over budget spent, reaching its
            floor when the budget ends; "auto": the module's own schedulers paced by budget spent,
            or linear if it has none; None leaves the learning rate alone.
        warmup: share of the budget over which the learning rate of `lr_schedule` rises, in [0, 1);
            a module's own schedulers have their own.
        lr_scaling: factor of the learning rate for a plan: "depth" for `DepthRate()`, which gives
            shallow plans a higher one; any function of a plan and the units that may train; None
            for the same rate whatever trains. The rate of the optimizer is taken to be the one for
            training everything.
        moments: whether a unit that gets frozen keeps its optimizer moments ("keep" or "drop").
        probes: share of the budget that looking at what frozen units would be worth may cost, in
            [0, 1); 0, the default, for never: in a first comparison it made a run switch late, and
            lose by it.
        calibration_steps: optimizer steps that train everything first, in [1, inf); fewer where
            they would take more than a twentieth of the budget.
        seed: recorded with the run; an allocator that draws has its own.
        replay: `attnbal.jsonl` of an earlier run, or its folder, whose plans are to be repeated:
            the same one from the same optimizer step on, with its learning-rate factor, its
            calibration and its early end; nothing is solved or probed. Budget and all else are as
            given; after the last recorded plan that one stays. Where a prefix cannot be cached
            here, it is frozen instead, and recorded so. A resumed run goes on with the plans in its
            checkpoint.
        tasks: where the training data is a dict of one DataLoader per task: each step serves one
            of them, `training_step` gets `{task: batch}`, and shares of the steps are decided along
            with each task's plan. None leaves the data alone: a dict of loaders then gives every
            step a batch of each, as Lightning has it.

    Raises:
        FileNotFoundError: there is no file to replay.
        TypeError: an argument has the wrong type.
        ValueError: an argument is outside its range, or the file to replay is no event stream.
        MisconfigurationException: before the first batch, for a Trainer, model or data that cannot
            be balanced.
        InfeasibleBudgetError: before the first weight moves, if the first step, which trains
            everything, or not even the cheapest plan fits.

    Example:
        >>> balancer = AttentionBalancer(budget="40%", lr_schedule="rex")
        >>> print(balancer.budget)
        40% of the full run
        >>> AttentionBalancer(budget="-3h")
        Traceback (most recent call last):
        ValueError: Expected `budget` to be in (0, inf), but got -3 h.
    """

    def __init__(
        self,
        budget: str | float | Quantity | Budget,
        memory: str | Quantity | None = None,
        units: UnitSpec = None,
        *,
        allocator: Allocator | None = None,
        levels: Sequence[str | Level] = ("cached", "frozen", "full"),
        cache: CacheSettings | None = None,
        lr_schedule: str | Schedule | None = "auto",
        warmup: float = 0.1,
        lr_scaling: Literal["depth"] | RateRule | None = "depth",
        moments: Literal["keep", "drop"] = "keep",
        probes: float = 0.0,
        calibration_steps: int = CALIBRATION_STEPS,
        seed: int = 0,
        replay: str | Path | None = None,
        tasks: TaskSettings | None = None,
    ) -> None:
        self.budget = Budget.parse(budget, memory)
        self.allocator = instance("allocator", allocator, Allocator, ForecastAllocator)
        self.levels = check_levels(levels)
        self.cache = instance("cache", cache, CacheSettings, CacheSettings)
        self.warmup = check_number("warmup", warmup, low=0, high=1, high_open=True)
        self.lr_schedule = lr_schedule
        if lr_schedule is not None and lr_schedule != "auto":
            make_schedule(lr_schedule, warmup)
        self.lr_scaling = check_rule(lr_scaling)
        check_choice("moments", moments, ("keep", "drop"))
        self.moments: Literal["keep", "drop"] = moments
        self.probes = check_number("probes", probes, low=0, high=1, high_open=True)
        self.calibration_steps = check_integer("calibration_steps", calibration_steps, low=1)
        self.seed = check_integer("seed", seed, low=0)
        if replay is not None and allocator is not None:
            msg = "Expected one of `allocator` and `replay`, but got both: who decides?"
            raise ValueError(msg)
        self.replay = None if replay is None else Path(replay)
        if tasks is not None and replay is not None:
            msg = "Expected one of `tasks` and `replay`, but got both: shares cannot be repeated."
            raise ValueError(msg)
        self.tasks = (
            tasks if tasks is None else instance("tasks", tasks, TaskSettings, TaskSettings)
        )
        refuse_other_allocator(self.allocator, self.tasks)
        self._replay = None if replay is None else Replay(replay)
        self._maker = RunMaker(
            budget=self.budget,
            units=units,
            allocator=self.allocator,
            levels=self.levels,
            cache=self.cache,
            moments=self.moments,
            lr_scaling=self.lr_scaling,
            calibration_steps=self.calibration_steps,
            replay=self._replay,
            tasks=self.tasks,
        )
        self._reset()

    def _reset(self) -> None:
        """Forget the last fit."""
        self._clock = StepClock()
        self._stopwatch = Stopwatch()
        self._run: Run | None = None
        self._fit: Fit | None = None
        self._serving: TaskData | None = None
        self._restored: Mapping[str, Any] | None = None

    # -- set-up ------------------------------------------------------------------------------

    @override
    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if stage == "fit":
            self._reset()
            if not _is_trial(trainer):
                tasks = self.tasks
                on_ranks = tasks is not None and tasks.parallel == "ranks"
                refuse_unsupported(trainer, pl_module, AttentionBalancer, on_ranks=on_ranks)
                if on_ranks:
                    refuse_ranks(trainer, self.budget, self.probes)
                if tasks is not None:
                    self._serving = serve_tasks(
                        trainer,
                        num_batches=tasks.epoch_batches,
                        mode=tasks.mode,
                        first_within=BURST,
                        seed=self.seed,
                    )
                self._clock.start()
                self._stopwatch.start()

    @override
    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if _is_trial(trainer):
            return
        if self.tasks is None:
            self._run = self._maker.make(trainer, pl_module, self._clock)

    @override
    @timed(OTHER)
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if _is_trial(trainer):
            return
        if self._serving is not None:  # which tasks there are is known from the loaders
            assert self.tasks is not None
            refuse_other_data(self._serving.loader, self.tasks.mode)
            refuse_no_validation(trainer, self.tasks)
            self._run = self._maker.make(trainer, pl_module, self._clock, self._serving)
        assert self._run is not None
        run = self._run
        batches = full_run_batches(trainer)
        run.ledger.full_batches = None if batches is None else batches * run.ranks.size
        refuse_endless_share(self.budget, run.ledger.full_batches)
        if math.isfinite(trainer.num_training_batches):
            run.begin_epochs(int(trainer.num_training_batches))
        folder = Path(trainer.log_dir or trainer.default_root_dir)
        self._fit = Fit(
            trainer,
            run,
            pace=make_pace(trainer, self.lr_schedule, self.warmup, run.ledger),
            probes=Probes(self.probes if self._replay is None else 0.0),
            record=RunRecord(folder, make_publisher(trainer), writes=trainer.is_global_zero),
            stopwatch=self._stopwatch,
        )
        if self._restored is not None:
            self._fit.load_state_dict(self._restored)
        note = "" if self.replay is None else f"The plans are those of {self.replay}."
        self._fit.begin(seed=self.seed, note=note)

    # -- the loop ----------------------------------------------------------------------------

    @override
    @timed(DATA)
    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._run is not None:
            self._run.begin_epoch()

    @override
    @timed(FORWARD)
    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if self._fit is not None:
            self._fit.begin_batch(batch, batch_idx)

    @override
    @timed(ACTIVATION)
    def on_before_backward(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: Any
    ) -> None:
        if self._fit is not None:
            self._fit.end_forward(loss)

    @override
    @timed(OPTIMIZER)
    def on_after_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._fit is not None:
            self._fit.end_backward()

    @override
    @timed(OPTIMIZER)
    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        if self._fit is not None:
            self._fit.before_step()

    @override
    @timed(DATA)
    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        if self._fit is not None:
            self._fit.end_batch(outputs)

    @override
    @timed(VALIDATION)
    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._run is not None:
            self._clock.begin_validation()

    @override
    @timed(OTHER)
    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._run is None:
            return
        batches = (trainer.num_sanity_val_batches, trainer.num_val_batches)
        seen, whole = (sum(n) if isinstance(n, list) else n for n in batches)
        if math.isfinite(whole):
            self._clock.end_validation(int(seen if trainer.sanity_checking else whole), int(whole))
        if self._fit is not None:
            self._fit.end_validation()

    @override
    @timed(OTHER)
    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._fit is not None:
            self._fit.end_epoch(trainer.current_epoch)

    @override
    @timed(OTHER)
    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._fit is not None:
            self._fit.end(self._clock.elapsed())
        self._close()

    @override
    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        self._close()

    @override
    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self._close()

    def _close(self) -> None:
        """Leave no trace on the model; what users read stays."""
        if self._run is not None:
            self._run.close()
        if self._serving is not None:
            self._serving.undo()
        if self._fit is not None:
            self._fit.close()

    # -- checkpoints -------------------------------------------------------------------------

    @override
    def state_dict(self) -> dict[str, Any]:
        if self._fit is None:
            return {}
        return {"version": _STATE_VERSION, **self._fit.state_dict()}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if not state_dict:
            return
        if state_dict.get("version") != _STATE_VERSION:
            msg = (
                f"Expected a balancer state of version {_STATE_VERSION}, but the checkpoint holds "
                f"version {state_dict.get('version')!r}."
            )
            raise ValueError(msg)
        self._restored = state_dict


def _is_trial(trainer: pl.Trainer) -> bool:
    """Whether this is `fast_dev_run`, which is about errors and not about results."""
    return bool(getattr(trainer, "fast_dev_run", False))
