"""From the run to the event stream."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightning_attnbal.callbacks._decision import Decision, changes
from lightning_attnbal.callbacks._run import Run
from lightning_attnbal.callbacks._task_run import TaskRun
from lightning_attnbal.core import Change
from lightning_attnbal.measure import unit_costs
from lightning_attnbal.measure.attention import AttentionStatistics
from lightning_attnbal.multitask import apportion
from lightning_attnbal.tracking import (
    AffinityMeasured,
    AttentionMeasured,
    CacheUsed,
    ContributionMeasured,
    CostSpent,
    Environment,
    Event,
    FrontierPoint,
    FrontierSolved,
    LoadMeasured,
    Notice,
    PlanDecided,
    Recorder,
    RunEnded,
    RunStarted,
    ScoresMeasured,
    SharesDecided,
    TasksServed,
    TimeSpent,
    UnitInfo,
)
from lightning_attnbal.tracking.views import Publisher

FILE_NAME = "attnbal.jsonl"


class RunRecord:
    """Writes what a run did to `attnbal.jsonl` in `folder`, as typed events, and has it shown.

    Args:
        folder: where the file goes.
        publisher: shows the events in loggers; none where there is none.
        writes: whether there is a file: one rank of several writes.
    """

    def __init__(
        self, folder: Path, publisher: Publisher | None = None, *, writes: bool = True
    ) -> None:
        self.path = folder / FILE_NAME
        self._recorder = Recorder(self.path if writes else None)
        self._publisher = Publisher(()) if publisher is None else publisher

    @property
    def events(self) -> tuple[Event, ...]:
        """The events so far."""
        return tuple(self._recorder.events)

    def show(self) -> None:
        """Have what is new shown in the loggers."""
        self._publisher.publish(self._recorder.events)

    def close(self) -> None:
        """No more events will come; after a regular end there is nothing left to show."""
        self._publisher.close(self._recorder.events)

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
        """The last decision of each task, and what it rests on."""
        latest = run.latest
        if len(run.history) == len(latest):
            self._calibrated(run, [decision.plan.task for decision in latest])
        for number, decision in enumerate(latest, len(run.history) - len(latest)):
            with run.as_task(decision.plan.task):
                self._decided(run, decision, changes(run.history[: number + 1]))
        if isinstance(run, TaskRun):
            self._shared(run)

    def _decided(self, run: Run, decision: Decision, changed: Sequence[Change]) -> None:
        """One decision."""
        task = decision.plan.task
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
            ContributionMeasured(
                values=run.session.values(), cost=decision.probe_flops, task=task, **at
            )
        )
        self._recorder.record(
            PlanDecided(
                plan=decision.plan,
                spent=decision.spent,
                remaining=decision.remaining,
                changes=tuple(map(str, changed)),
                reason=f"{decision.why}; {decision.plan.method}",
                why=decision.why,
                probe_flops=decision.probe_flops,
                costs=unit_costs(loads, decision.plan),
                **at,
            )
        )
        points = tuple(FrontierPoint(**asdict(point)) for point in decision.plan.alternatives)
        if points:
            self._recorder.record(FrontierSolved(points=points, task=task, **at))

    def _calibrated(self, run: Run, tasks: Sequence[str]) -> None:
        """What was done before the first decision: everything trained."""
        reason = "everything trains at first, to measure what it is worth"
        for task in tasks:
            plan = replace(run.session.full_plan, method="calibration", task=task)
            self._recorder.record(PlanDecided(plan=plan, spent=0.0, remaining=0.0, reason=reason))

    def _shared(self, run: TaskRun) -> None:
        """Who gets the coming batches, what each got so far, and whom that helped."""
        at: dict[str, Any] = {"step": run.num_steps, "epoch": run.latest[-1].epoch}
        account = run.account
        coming = apportion(run.shares, len(run.loader) * run.ranks.size)
        rule = "joint allocation"
        self._recorder.record(
            SharesDecided(
                shares=run.shares,
                batches=coming,
                reasons=dict(run.planner.reasons),
                rule=rule,
                **at,
            )
        )
        self._recorder.record(
            TasksServed(
                batches=dict(account.batches),
                spent=dict(account.spent),
                losses=account.losses,
                **at,
            )
        )
        matrix, errors = run.affinity.affinity()
        if not np.isnan(matrix).all():
            pairs: dict[str, Any] = {"affinity": _rows(matrix), "errors": _rows(errors)}
            self._recorder.record(AffinityMeasured(tasks=run.planner.tasks, **pairs, **at))

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

    def timed(self, run: Run, seconds: Mapping[str, float], *, epoch: int) -> None:
        """Where the wall-clock time went so far."""
        self._recorder.record(TimeSpent(step=run.num_steps, epoch=epoch, seconds=seconds))

    def scored(self, run: Run, scores: Mapping[str, float], *, epoch: int) -> None:
        """What the user's module logged, if it did."""
        if scores:
            self._recorder.record(ScoresMeasured(step=run.num_steps, epoch=epoch, scores=scores))

    def attended(self, run: Run, seen: AttentionStatistics, *, epoch: int) -> None:
        """What the attention heads do, if there are any."""
        if seen.entropy:
            self._recorder.record(
                AttentionMeasured(
                    step=run.num_steps,
                    epoch=epoch,
                    entropy=seen.entropy,
                    importance=seen.importance,
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
        self._publisher.skip(self._recorder.events)


def _rows(matrix: NDArray[np.float64]) -> tuple[tuple[float, ...], ...]:
    return tuple(map(tuple, matrix.tolist()))
