"""What users read of a run, while it lasts and afterwards."""

from __future__ import annotations

import lightning.pytorch as pl

from lightning_attnbal.callbacks._decision import Decision, explain
from lightning_attnbal.callbacks._fit import Fit
from lightning_attnbal.callbacks._ledger import Ledger
from lightning_attnbal.callbacks._run import Run
from lightning_attnbal.callbacks._task_run import TaskRun
from lightning_attnbal.core import Budget, Dimension, Plan, Quantity, Unit
from lightning_attnbal.tracking import Event
from lightning_attnbal.tracking.report import ReportView


class RunView(pl.Callback):
    """The figures, decisions and events of the run that a callback balances."""

    budget: Budget
    _run: Run | None
    _fit: Fit | None

    @property
    def units(self) -> tuple[Unit, ...]:
        """What gets a level, forward order; empty before the fit."""
        return () if self._run is None else self._run.session.units

    @property
    def plan(self) -> Plan | None:
        """The plan in force, or the last one; None before the first decision."""
        return self.history[-1].plan if self.history else None

    @property
    def history(self) -> tuple[Decision, ...]:
        """Every decision of this fit, in order."""
        return () if self._run is None else tuple(self._run.history)

    @property
    def shares(self) -> dict[str, float]:
        """Task → share of the steps, as last decided; empty for a run of one task."""
        return dict(self._run.shares) if isinstance(self._run, TaskRun) else {}

    @property
    def reference(self) -> Quantity | None:
        """Cost of the full run in the budget's dimension; None until measured or without an end."""
        return self._ledger.reference

    @property
    def limit(self) -> Quantity | None:
        """The budget in FLOPs or seconds; None until a share can be resolved."""
        return self._ledger.limit

    @property
    def spent(self) -> Quantity:
        """What the fit has spent, in the budget's dimension."""
        return self._ledger.spent

    @property
    def flops(self) -> Quantity:
        """FLOPs of all training steps so far, whatever the budget counts."""
        return Quantity(self._ledger.flops, Dimension.FLOP)

    @property
    def seconds(self) -> Quantity:
        """Wall-clock time of the fit so far, whatever the budget counts."""
        return Quantity(self._ledger.seconds, Dimension.SECOND)

    @property
    def events(self) -> tuple[Event, ...]:
        """The event stream so far, as written to `attnbal.jsonl`."""
        return () if self._fit is None else self._fit.record.events

    def report(self) -> ReportView:
        """The run's figures and decisions, for the last line of a notebook's cell.

        `attnbal report` writes the same as a page of its own.
        """
        return ReportView(self.events)

    def explain(self) -> str:
        """Budget and spending, every decision with what it changed, each change with its reason."""
        return explain(self._ledger, self.history, "" if self._run is None else self._run.finished)

    @property
    def _ledger(self) -> Ledger:
        return (
            Ledger(budget=self.budget, full_batches=None) if self._run is None else self._run.ledger
        )
