"""Looks at a fit without taking part in it: its time, its attention, its scores."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import lightning.pytorch as pl

from lightning_attnbal.callbacks._progress_view import ProgressView
from lightning_attnbal.callbacks._recording import RunRecord
from lightning_attnbal.callbacks._run import Run
from lightning_attnbal.callbacks._stopwatch import (
    ACTIVATION,
    CACHE,
    FORWARD,
    WEIGHT,
    Stopwatch,
    weight_share,
)
from lightning_attnbal.measure.attention import AttentionMeter

_OURS = "attnbal/"


class Watch:
    """Reads the hooks of a fit into the stream and the terminal.

    Args:
        trainer: of the fit.
        run: what is balanced.
        record: where events go.
        stopwatch: runs since the fit was set up.
    """

    def __init__(
        self, trainer: pl.Trainer, run: Run, record: RunRecord, stopwatch: Stopwatch
    ) -> None:
        self._trainer, self._run, self._record = trainer, run, record
        self._stopwatch = stopwatch
        self._view = ProgressView(trainer)
        self._shares: dict[str, float] = {}
        self._seconds_read = 0.0
        self._scored: dict[str, float] = {}
        self._attention = AttentionMeter(trainer.lightning_module)
        self._is_attending = False
        self._attended = -1  # epoch whose first batch was looked at last

    def begin_batch(self) -> None:
        """A batch starts: the first of an epoch tells what attention does."""
        if self._trainer.current_epoch > self._attended:
            self._attended = self._trainer.current_epoch
            self._is_attending = True
            self._attention.start(self._cached_modules())

    def _cached_modules(self) -> list[str]:
        """What is read instead of run, or is about to be."""
        session = self._run.session
        prefix = session.caches.prefix
        wanted = () if prefix is None else prefix.wanted
        return [name for unit in session.units if unit.name in wanted for name in unit.modules]

    def end_forward(self) -> None:
        """The loss of a batch is known."""
        self._attention.end_forward()
        store = self._run.session.caches.store
        if store is not None:
            read = store.stats.seconds_read
            took, self._seconds_read = read - self._seconds_read, read
            self._stopwatch.move(FORWARD, CACHE, min(took, self._stopwatch.lap))

    def end_batch(self) -> None:
        """A batch is over, perhaps without a loss; what is counted now is not looked at."""
        self._attention.end_forward()

    def end_backward(self) -> None:
        """The gradients of a batch are there."""
        session = self._run.session
        plan = session.plan or session.full_plan
        if plan.task not in self._shares:
            self._shares[plan.task] = weight_share(session.shapes.loads, plan)
        self._stopwatch.move(ACTIVATION, WEIGHT, self._shares[plan.task] * self._stopwatch.lap)
        if self._is_attending:
            self._is_attending = False
            self._attention.stop()
            self._record.attended(self._run, self._attention.compute(), epoch=self._attended)

    def decided(self) -> None:
        """There is a new decision."""
        self._shares.clear()
        self._view.announce(self._run.history)

    def show(self) -> None:
        """Bring the progress bar up to date."""
        session, ledger = self._run.session, self._run.ledger
        left = ledger.seconds_left(self._run.cost_per_batch)
        self._view.show(self._run.progress, left, session.plan or session.full_plan)

    def end_validation(self) -> dict[str, float]:
        """Scores are in: these."""
        if self._trainer.sanity_checking:
            return {}
        self._scored = self._scores()
        self._record.scored(self._run, self._scored, epoch=self._trainer.current_epoch)
        return self._scored

    def end_epoch(self, epoch: int) -> None:
        """Record where the time went."""
        self._record.timed(self._run, self._stopwatch.read(), epoch=epoch)

    def end(self) -> None:
        """The fit is over; what was logged since the last validation counts too."""
        if self._scores() != self._scored:
            self.end_validation()
        self.end_epoch(self._trainer.current_epoch)

    def _scores(self) -> dict[str, float]:
        """What the user logged and is a finite number."""
        logged = self._trainer.callback_metrics.items()
        scores = {name: float(value) for name, value in logged if not name.startswith(_OURS)}
        return {name: value for name, value in scores.items() if math.isfinite(value)}

    def close(self) -> None:
        """Leave no trace; safe to call twice."""
        self._attention.stop()
        self._view.close()

    def state_dict(self) -> dict[str, Any]:
        """Plain data for a checkpoint."""
        return {"stopwatch": self._stopwatch.read(), "attended": self._attended}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self._stopwatch.load_state_dict(state["stopwatch"])
        self._attended = int(state["attended"])
