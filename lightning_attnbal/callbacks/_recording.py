"""From the run to the event stream."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from lightning_attnbal.callbacks._decision import changes
from lightning_attnbal.callbacks._run import Run
from lightning_attnbal.tracking import (
    CacheUsed,
    ContributionMeasured,
    CostSpent,
    Environment,
    Event,
    LoadMeasured,
    Notice,
    PlanDecided,
    Recorder,
    RunEnded,
    RunStarted,
    UnitInfo,
)

FILE_NAME = "attnbal.jsonl"


class RunRecord:
    """Writes what a run did to `attnbal.jsonl` in `folder`, as typed events."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE_NAME
        self._recorder = Recorder(self.path)

    @property
    def events(self) -> tuple[Event, ...]:
        """The events so far."""
        return tuple(self._recorder.events)

    def start(self, run: Run, *, seed: int, device: str) -> None:
        """Open the stream; a resumed run goes on in its own."""
        if self._recorder.events:
            return
        self._recorder.record(
            RunStarted(
                budget=str(run.ledger.budget),
                dimension=run.dimension,
                seed=seed,
                units=tuple(UnitInfo.of(unit) for unit in run.session.units),
                environment=Environment.collect(device),
            )
        )

    def decided(self, run: Run) -> None:
        """The last decision, and what it rests on."""
        decision = run.history[-1]
        if len(run.history) == 1:
            self._calibrated(run)
        at: dict[str, Any] = {"step": decision.step, "epoch": decision.epoch}
        loads = run.session.shapes.loads
        reference = run.ledger.reference
        self._recorder.record(
            LoadMeasured(
                flops={load.unit.name: load.flops.total for load in loads},
                seconds={x.unit.name: x.seconds.total for x in loads if x.seconds is not None},
                saved_bytes={load.unit.name: load.saved_bytes for load in loads},
                reference_cost=math.nan if reference is None else reference.amount,
                **at,
            )
        )
        self._recorder.record(
            ContributionMeasured(values=run.session.values(), cost=decision.probe_flops, **at)
        )
        self._recorder.record(
            PlanDecided(
                plan=decision.plan,
                spent=decision.spent,
                remaining=decision.remaining,
                changes=tuple(map(str, changes(run.history))),
                reason=f"{decision.why}; {decision.plan.method}",
                why=decision.why,
                probe_flops=decision.probe_flops,
                **at,
            )
        )

    def _calibrated(self, run: Run) -> None:
        """What was done before the first decision: everything trained."""
        plan = replace(run.session.full_plan, method="calibration")
        reason = "everything trains at first, to measure what it is worth"
        self._recorder.record(PlanDecided(plan=plan, spent=0.0, remaining=0.0, reason=reason))

    def noted(self, run: Run, text: str, *, epoch: int = 0) -> None:
        """Something a reader should know."""
        self._recorder.record(Notice(step=run.num_steps, epoch=epoch, text=text))

    def spent(self, run: Run, *, epoch: int, learning_rate: float) -> None:
        """Where the account stands."""
        self._recorder.record(
            CostSpent(
                step=run.num_steps,
                epoch=epoch,
                spent=run.ledger.spent.amount,
                planned=run.planned,
                seconds=run.ledger.seconds,
                flops=run.ledger.flops,
                learning_rate=learning_rate,
            )
        )

    def cached(self, run: Run, *, epoch: int) -> None:
        """What the prefix cache did so far, if there is one."""
        caches = run.session.caches
        if caches.prefix is None or caches.store is None:
            return
        counts, stats = caches.prefix.counts, caches.store.stats
        refused = (f"{units[-1]}: {why}" for units, why in caches.prefix.refused.items())
        self._recorder.record(
            CacheUsed(
                step=run.num_steps,
                epoch=epoch,
                rows=counts.rows,
                rows_read=counts.rows_read,
                stored_rows=stats.rows,
                ram_bytes=stats.ram_bytes,
                disk_bytes=stats.disk_bytes,
                bytes_read=stats.bytes_read,
                seconds_read=stats.seconds_read,
                flops_saved=caches.flops_saved,
                audits=counts.audits,
                largest_error=counts.largest_error,
                problems=(*stats.problems, *refused),
            )
        )

    def end(self, run: Run, *, epoch: int, learning_rate: float) -> None:
        """The last account, and why the run ended."""
        self.spent(run, epoch=epoch, learning_rate=learning_rate)
        self.cached(run, epoch=epoch)
        limit = run.ledger.limit
        self._recorder.record(
            RunEnded(
                step=run.num_steps,
                epoch=epoch,
                why=run.finished or "the Trainer's own limits",
                spent=run.ledger.spent.amount,
                limit=math.inf if limit is None else limit.amount,
            )
        )

    def state_dict(self) -> dict[str, Any]:
        """Plain data for a checkpoint."""
        return self._recorder.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where the checkpoint left the stream."""
        self._recorder.load_state_dict(state)
