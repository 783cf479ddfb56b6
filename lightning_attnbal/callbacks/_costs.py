"""What batches and steps cost, as far as a run can tell by now."""

from __future__ import annotations

import math
from dataclasses import dataclass

from lightning_attnbal.callbacks._ledger import Ledger
from lightning_attnbal.callbacks._session import Session
from lightning_attnbal.callbacks._timing import StepClock
from lightning_attnbal.core import Dimension, Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """Of one task, in the budget's dimension: FLOPs are counted, seconds clocked and modelled.

    Args:
        ledger: whose budget says what is counted.
        clock: the wall clock.
        session: of the task.
        batches_per_step: batches per optimizer step.
    """

    ledger: Ledger
    clock: StepClock
    session: Session
    batches_per_step: int

    @property
    def dimension(self) -> Dimension:
        """What is counted against the budget."""
        return self.ledger.budget.dimension

    @property
    def _plan(self) -> Plan:
        return self.session.plan or self.session.full_plan

    def predicted(self, plan: Plan) -> float:
        """A batch under a plan, in whatever orders plans by time."""
        return self.session.cost_per_batch(self.dimension, plan)

    def batch(self, plan: Plan) -> float:
        """A batch under a plan; for seconds, what they take now, scaled."""
        if self.dimension is Dimension.FLOP:
            return self.predicted(plan)
        now = self.session.caches.effective(self._plan)
        taken = self.clock.seconds_per_batch
        if plan == now or self.session.step_time is None:
            return taken
        return taken * self.predicted(plan) / self.predicted(now)

    @property
    def mean_batch(self) -> float:
        """Expected mean of the batches left under the plan in force; NaN before the first."""
        if not self.ledger.batches:
            return math.nan
        plan = self._plan
        filling = self.session.fill_left(plan)
        steady = self.batch(plan)
        left = self.ledger.remaining_batches
        if not filling or not left:
            return steady
        dearer = self.batch(self.session.caches.thawed(plan))
        return steady + (dearer - steady) * min(1.0, filling / left)

    @property
    def next_step(self) -> float:
        """What the next optimizer step may cost; while a cache fills, all samples may be new."""
        if not self.ledger.batches:
            return math.nan
        if self.dimension is Dimension.SECOND:
            return self.clock.seconds_per_batch * self.batches_per_step
        plan = self._plan
        dearest = self.batch(self.session.caches.thawed(plan)) * self.batches_per_step
        extra = self.session.most_extra(plan)
        if self.session.fill_left(plan) > 0 or extra > 0:
            return dearest + extra
        steady = self.batch(plan) * self.batches_per_step
        return steady + self.session.caches.checks_share * (dearest - steady)

    def one_off(self, plan: Plan) -> float:
        """What filling the cache of a plan costs."""
        batches = self.session.fill_left(plan)
        if not batches:
            return 0.0
        thawed = self.session.caches.thawed(plan)
        return batches * (self.predicted(thawed) - self.predicted(plan))

    def change_plan(self, plan: Plan) -> None:
        """Another plan takes effect, its cache unread: steps will take another time."""
        caches = self.session.caches
        before = self.predicted(caches.effective(self._plan))
        self.session.apply(plan)
        self.clock.change_plan(self.predicted(caches.thawed(plan)) / before)
        caches.is_reading = False

    def change_pace(self, *, was_reading: bool) -> None:
        """Steps take another time from when most samples are read; forget the old one."""
        caches = self.session.caches
        if was_reading == caches.is_reading or self.session.step_time is None:
            return
        ratio = self.predicted(self._plan) / self.predicted(caches.thawed(self._plan))
        self.clock.change_plan(ratio if caches.is_reading else 1 / ratio)

    def fit_seconds(self) -> None:
        """Bring the step-time model up to date with what steps took under the plan in force."""
        per_step = self.batches_per_step
        self.session.fit_seconds(self.clock.seconds_per_batch * per_step, per_step)
        full = self.session.cost_per_batch(Dimension.SECOND, self.session.full_plan)
        self.ledger.full_seconds_per_batch = full
        self.ledger.seconds = self.clock.elapsed()
