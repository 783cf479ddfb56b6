"""One balanced run: ledger, clock, model session and allocator, without a Trainer."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from lightning_attnbal.allocate import Allocator
from lightning_attnbal.callbacks._costs import Costs
from lightning_attnbal.callbacks._decision import Decision
from lightning_attnbal.callbacks._ledger import Ledger
from lightning_attnbal.callbacks._losses import Losses
from lightning_attnbal.callbacks._replay import Replay
from lightning_attnbal.callbacks._session import Session
from lightning_attnbal.callbacks._solving import check_feasible, solve, with_rate
from lightning_attnbal.callbacks._task_ranks import Ranks
from lightning_attnbal.callbacks._timing import StepClock
from lightning_attnbal.core import Dimension, InfeasibleBudgetError, Plan
from lightning_attnbal.planning import calibration_steps
from lightning_attnbal.trainer import RateRule

_STEPS_TO_TRUST = 10
_EPOCHS_UNTIL_PLANNED = 10
_LOOK_AGAIN = 4  # times as many steps as at the last look


@dataclass(kw_only=True)
class Run:
    """Books every batch, decides when it is time to, and says when the budget is spent.

    Args:
        ledger: allowance and spending.
        session: the model's half.
        clock: the wall clock.
        allocator: turns menus and what is left into a plan.
        replay: decisions of an earlier run, to be taken again instead.
        rate_rule: gives the factor of the learning rate for a plan; None leaves it at 1.
        calibration_steps: optimizer steps that train everything before the first decision.
        batches_per_step: batches per optimizer step (gradient accumulation).
        samples_per_epoch: optimizer steps per epoch from which contributions are estimated.
        steps_per_epoch: optimizer steps per epoch, None if the data has no known length.
        history: the decisions so far.
        num_steps: optimizer steps taken.
        plan_steps_left: steps the plan in force is still meant for, None if to the end.
        planned: what the plans in force predicted for the steps taken, in the budget's dimension.
        once_left: what is still to be paid of the one-off cost of the plan in force, as planned.
        once_per_step: how much of it a step pays.
        probed: what probes of frozen units have cost, in the budget's dimension.
        probe_flops: FLOPs of those since the last decision.
        losses: training losses so far.
        reached: the largest `progress` so far: a plan that uses up more of the budget must not make
            the learning rate rise again.
        finished: why the budget ended the run, empty while it has not.
        ranks: the processes that train together; what is booked is of all of them.
        ended_epoch: the epoch whose last batch is over and whose end is not; None otherwise. A run
            resumed from there never sees that end.
    """

    ledger: Ledger
    session: Session
    clock: StepClock
    allocator: Allocator
    calibration_steps: int
    replay: Replay | None = None
    rate_rule: RateRule | None = None
    batches_per_step: int = 1
    steps_per_epoch: int | None = None
    samples_per_epoch: int = 4
    history: list[Decision] = field(default_factory=list)
    num_steps: int = 0
    plan_steps_left: int | None = None
    planned: float = 0.0
    once_left: float = 0.0
    once_per_step: float = 0.0
    probed: float = 0.0
    probe_flops: float = 0.0
    losses: Losses = field(default_factory=Losses)
    reached: float = 0.0
    finished: str = ""
    ended_epoch: int | None = None
    ranks: Ranks = field(default_factory=Ranks)

    def __post_init__(self) -> None:
        self.costs = self._costs_of(self.session)

    def _costs_of(self, session: Session) -> Costs:
        session.needs_inputs = self.dimension is Dimension.SECOND
        return Costs(
            ledger=self.ledger,
            clock=self.clock,
            session=session,
            batches_per_step=self.batches_per_step,
        )

    def begin_epochs(self, num_batches: int) -> None:
        """The data has a known length."""
        self.steps_per_epoch = math.ceil(num_batches / self.batches_per_step)
        self.losses.window = max(1, self.steps_per_epoch // 20)
        self.session.caches.epoch_batches = num_batches

    @property
    def dimension(self) -> Dimension:
        """What is counted against the budget."""
        return self.ledger.budget.dimension

    @property
    def cost_per_batch(self) -> float:
        """Expected mean cost of the batches left under the plan in force; NaN before the first."""
        return self.costs.mean_batch

    @property
    def progress(self) -> float:
        """Share of the run that is over, in [0, 1]."""
        if self.finished:
            return 1.0
        return max(self.reached, self.ledger.progress(self.cost_per_batch))

    @property
    def step_share(self) -> float:
        """Share of the run that the coming optimizer step is.

        Before anything was measured as if all steps cost the same; before the first plan at least
        what it is of ten epochs, where the run has no end of its own.
        """
        cost, full = self.cost_per_batch, self.ledger.full_batches
        total = self.ledger.expected_total(cost)
        share = self.batches_per_step * cost / total if total > 0 else 0.0
        if full and not self.ledger.batches:
            budget = self.ledger.budget
            total = full * (budget.limit.amount if budget.is_fraction else 1.0)
            share = self.batches_per_step / total
        share = min(1.0, share) if math.isfinite(share) else 0.0
        if full is None and self.is_calibrating and self.steps_per_epoch:
            share = max(share, 1 / (_EPOCHS_UNTIL_PLANNED * self.steps_per_epoch))
        return share

    @property
    def latest(self) -> tuple[Decision, ...]:
        """What was decided last."""
        return tuple(self.history[-1:])

    @contextmanager
    def as_task(self, task: str) -> Iterator[None]:  # noqa: ARG002 (there is only one here)
        """As if a batch of `task` were at hand."""
        yield

    @property
    def is_calibrating(self) -> bool:
        """Whether everything still trains to find out what it is worth."""
        return not self.history

    @property
    def goes_on(self) -> bool:
        """Whether there is something left to decide on at the end of an epoch."""
        is_over = self.finished or self.ledger.remaining_batches == 0
        return not (is_over or self.is_calibrating)

    @property
    def is_sampled(self) -> bool:
        """Whether the coming optimizer step is one whose contributions are estimated."""
        every = 50 if self.steps_per_epoch is None else self.steps_per_epoch
        return self.is_calibrating or self.num_steps % max(1, every // self.samples_per_epoch) == 0

    def begin_epoch(self) -> None:
        """A pass over the data starts, maybe after `model.train()`."""
        self.session.applier.refresh()
        self.session.caches.begin_epoch()

    def begin_batch(self, batch: Any) -> None:
        """A batch starts."""
        self.session.begin_batch(batch)

    def before_step(self) -> None:
        """Call right before an optimizer step, gradients there."""
        self.session.worth.before_step(is_sampled=self.is_sampled)

    def after_step(self) -> None:
        """Call after a sampled optimizer step, gradients still there."""
        self.session.worth.after_step()

    def see_scores(self, scores: Mapping[str, float]) -> None:
        """A validation has ended; decisions about one task go by its training loss alone."""

    def end_forward(self, loss: Tensor | None = None) -> None:
        """The forward pass of a batch is over; before the first weight moves, check the budget."""
        self.session.end_forward(loss)
        if not self.ledger.batches:
            check_feasible(self)

    def end_batch(
        self, *, stepped: bool, epoch: int, loss: Tensor | None = None
    ) -> Decision | None:
        """Book a batch; after an optimizer step decide if it is time to, and see what is left."""
        self._book(stepped=stepped, loss=loss)
        self.ledger.seconds = self.clock.lap()
        self.reached = self.progress
        if not stepped:
            return None
        if self.is_sampled:
            self.after_step()
        self.num_steps += 1
        self.planned += self._step_cost() if self.is_calibrating else self._planned_step()
        if self.plan_steps_left is not None:
            self.plan_steps_left -= 1
        is_over = self.plan_steps_left == 0 and self.history[-1].plan.is_final
        decision = None
        if self.replay is not None:
            decision = self.repeat(epoch, at_epoch_end=False)
        elif why := self._occasion():
            decision = self.decide(epoch, why)
        if is_over and decision is None:
            self.finished = "more training is not expected to help"
        self._see_what_is_left()
        return decision

    def _book(self, *, stepped: bool, loss: Tensor | None) -> None:
        """Note the loss of a batch and what it cost."""
        plan = self.session.plan or self.session.full_plan
        self.losses.add(plan.trained, loss, stepped=stepped)
        was = self.session.caches.is_reading
        flops, full = self.session.end_batch()
        self.costs.change_pace(was_reading=was)
        self._charge(flops, full)

    def _charge(self, flops: float, full_flops: float) -> None:
        """Book what a batch cost, and would have cost with everything trained."""
        self.ledger.charge(flops=flops, full_flops=full_flops)

    def _occasion(self) -> str:
        """Why it is time to decide after an optimizer step; empty if it is not."""
        if self.is_calibrating:
            return "calibrated" if self._is_calibrated() else ""
        if why := self.session.caches.why_refused(self.session.plan):
            return f"not cached after all: {why}"
        is_due = self.plan_steps_left == 0 and not self.history[-1].plan.is_final
        return "time to look again" if is_due and self.ledger.remaining_batches != 0 else ""

    def may_probe(self, flops: Sequence[float], share: float) -> bool:
        """Whether probes of this cost keep all of them within `share` of what was spent so far."""
        plan = self.session.plan
        if plan is None or not self.goes_on:
            return False
        if all(name in plan.trained for name in self.session.full_plan.trained):
            return False
        if self.dimension is Dimension.FLOP:
            cost = sum(flops)
        else:
            cost = len(flops) * self.ledger.full_seconds_per_batch
        allowed = share * self.ledger.spent.amount
        return self.probed + cost <= allowed and self.ledger.can_afford(cost + self._step_cost())

    def probe(self, losses: Sequence[Callable[[], Tensor]], flops: Sequence[float]) -> None:
        """Measure what is frozen, and charge it."""
        began = self.clock.elapsed()
        self.session.probe(losses)
        self.ledger.flops += sum(flops)
        seconds = self.clock.elapsed() - began
        self.probed += sum(flops) if self.dimension is Dimension.FLOP else seconds
        self.probe_flops += sum(flops)
        self.clock.pause()

    def decide(self, epoch: int, why: str) -> Decision | None:
        """Solve for what is left and apply the answer; None if nothing is left to solve for."""
        if self.replay is not None:
            return self.repeat(epoch)
        if self.dimension is Dimension.SECOND:
            self._fit_seconds()
        if self.ledger.is_unrestricted:
            return self._put_full(epoch, why)
        if self.history and not self.ledger.can_afford(self._step_cost()):
            return None
        try:
            return self._put_best(epoch, why)
        except InfeasibleBudgetError:  # the steps taken so far were all that it bought
            return None

    def _put_full(self, epoch: int, why: str) -> Decision:
        """Train everything."""
        return self._put(self.session.full_plan, epoch, why)

    def _put_best(self, epoch: int, why: str) -> Decision:
        """Solve and apply.

        Raises:
            InfeasibleBudgetError: what is left buys not one step.
        """
        return self._put(with_rate(self, solve(self)), epoch, why)

    def _fit_seconds(self) -> None:
        """Learn from what steps took."""
        self.costs.fit_seconds()

    def repeat(self, epoch: int, *, at_epoch_end: bool = True) -> Decision | None:
        """Take the recorded decision that is due; None if none is.

        What its probes cost is booked again, though they are not run: the learning rate follows
        what was spent. A prefix that cannot be cached here is frozen instead.
        """
        if self.replay is None:
            return None
        due = self.replay.take(self.num_steps, at_epoch_end=at_epoch_end)
        refused = self.session.caches.why_refused(self.session.plan)
        if due is None and refused is None:
            return None
        if self.dimension is Dimension.SECOND:
            self._fit_seconds()
        if due is None:
            plan = replace(self.history[-1].plan, num_steps=self.plan_steps_left)
            return self._put(self._as_here(plan), epoch, f"not cached after all: {refused}")
        is_flop = self.dimension is Dimension.FLOP
        most = self.ledger.remaining if is_flop else math.inf
        self.probe_flops = min(due.probe_flops, most)
        self.ledger.flops += self.probe_flops
        return self._put(self._as_here(due.plan), epoch, due.why)

    def _as_here(self, plan: Plan) -> Plan:
        """A recorded plan in terms of this run: its units' order, its cost, what can be cached."""
        assert self.replay is not None
        here = replace(plan, levels={unit.name: plan[unit.name] for unit in self.session.units})
        if self.session.caches.why_refused(here) is not None:
            here = replace(here, levels=self.session.caches.thawed(here).levels)
        elif self.replay.dimension is self.dimension:
            return here
        return replace(here, cost_per_step=self.costs.predicted(here) * self.batches_per_step)

    def _put(self, plan: Plan, epoch: int, why: str) -> Decision:
        """Write a decision down and apply it."""
        decision = Decision(
            plan=plan,
            step=self.num_steps,
            epoch=epoch,
            spent=self.ledger.spent.amount,
            remaining=self.ledger.remaining,
            why=why,
            probe_flops=self.probe_flops,
        )
        self.probe_flops = 0.0
        self.history.append(decision)
        self.plan_steps_left = self._steps_until_next(plan)
        self.ledger.last_batch = None
        if plan.is_final and plan.num_steps is not None:
            self.ledger.last_batch = self.ledger.batches + plan.num_steps * self.batches_per_step
        self.once_left = self.costs.one_off(plan)
        fill = self.session.fill_left(plan) / self.batches_per_step
        self.once_per_step = self.once_left / max(1.0, fill)
        if not plan.same_levels(self.session.plan):
            self.costs.change_plan(plan)
        self.clock.pause()
        return decision

    @property
    def lr_factor(self) -> float:
        """Factor of the learning rate under the plan in force."""
        return self.history[-1].plan.lr_factor if self.history else 1.0

    def _steps_until_next(self, plan: Plan) -> int | None:
        """After how many steps to decide again.

        Before the plan's own steps are done under a time budget: forecasts of seconds are not
        exact, and what they miss by must not pile up at the end. And within the first epoch: the
        first batches may be longer or shorter than the rest.
        """
        if plan.is_final or self.ledger.is_unrestricted:
            return plan.num_steps
        soon = math.inf if plan.num_steps is None else plan.num_steps
        if self.dimension is Dimension.SECOND and plan.num_steps is not None:
            soon = min(soon, max(_STEPS_TO_TRUST, plan.num_steps // 4))
        if self.num_steps < (self.steps_per_epoch or 0):
            soon = min(soon, (_LOOK_AGAIN - 1) * self.num_steps)
        return None if math.isinf(soon) else int(soon)

    def _planned_step(self) -> float:
        """What the plan in force was expected to cost this step when it was decided."""
        paid = min(self.once_left, self.once_per_step)
        self.once_left -= paid
        return self.history[-1].plan.cost_per_step + paid

    def _is_calibrated(self) -> bool:
        """Whether enough was seen for a first decision."""
        return self.num_steps >= self._calibration_end()

    def _calibration_end(self) -> int:
        """Calibration takes at most a twentieth of the budget, and at least one step."""
        step = self._step_cost()
        affordable = (self.ledger.remaining + self.num_steps * step) / step
        return calibration_steps(affordable, self.dimension, self.calibration_steps)

    def _step_cost(self) -> float:
        """What the next optimizer step may cost."""
        return self.costs.next_step

    def _see_what_is_left(self) -> None:
        """Finish when the next optimizer step would exceed the budget."""
        if self.dimension is Dimension.SECOND:
            self.ledger.reserve = self.clock.seconds_per_validation
        if not self.finished and not self.ledger.can_afford(self._step_cost()):
            self.finished = "the next step would exceed the budget"

    def close(self) -> None:
        """Leave no trace on the model."""
        self.session.close()

    def state_dict(self) -> dict[str, Any]:
        """Plain data for a checkpoint."""
        return {
            "ledger": self.ledger.state_dict(),
            "clock": self.clock.state_dict(),
            "session": self.session.state_dict(),
            "history": [decision.to_dict() for decision in self.history],
            "num_steps": self.num_steps,
            "plan_steps_left": self.plan_steps_left,
            "planned": self.planned,
            "once": (self.once_left, self.once_per_step),
            "probed": self.probed,
            "probe_flops": self.probe_flops,
            "replay": None if self.replay is None else self.replay.state_dict(),
            "losses": self.losses.state_dict(),
            "reached": self.reached,
            "finished": self.finished,
            "ended_epoch": self.ended_epoch,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave; the plan is applied at once."""
        self.ledger.load_state_dict(state["ledger"])
        self.clock.load_state_dict(state["clock"])
        self.clock.start(spent=self.ledger.seconds)
        self.session.load_state_dict(state["session"])
        self.history = [Decision.from_dict(data) for data in state["history"]]
        self.num_steps = int(state["num_steps"])
        self.plan_steps_left = state["plan_steps_left"]
        self.planned = float(state["planned"])
        self.once_left, self.once_per_step = map(float, state["once"])
        self.probed = float(state["probed"])
        self.probe_flops = float(state["probe_flops"])
        if self.replay is not None and state["replay"] is not None:
            self.replay.load_state_dict(state["replay"])
        self.losses.load_state_dict(state["losses"])
        self.reached = float(state["reached"])
        self.finished = str(state["finished"])
        self.ended_epoch = state["ended_epoch"]
        self.session.needs_inputs &= self.session.step_time is None
        self._resume_plans()
        self._see_what_is_left()

    def _resume_plans(self) -> None:
        """The model does again what it did."""
        if self.history:
            self.session.resume(self.history[-1].plan)
