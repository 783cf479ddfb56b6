"""A balanced run of several tasks: each step serves one, under that task's own plan."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from lightning_attnbal.allocate import Limits
from lightning_attnbal.callbacks._decision import Decision
from lightning_attnbal.callbacks._losses import Losses
from lightning_attnbal.callbacks._run import Run
from lightning_attnbal.callbacks._session import Session
from lightning_attnbal.callbacks._solving import limits_of, with_rate
from lightning_attnbal.callbacks._task_account import TaskAccount
from lightning_attnbal.callbacks._task_bursts import BURST, Bursts
from lightning_attnbal.callbacks._task_plans import TaskDecision, TaskPlans
from lightning_attnbal.core import Dimension, Plan
from lightning_attnbal.multitask import AffinityMeter, TaskLoader, task_worth
from lightning_attnbal.trainer import TaskData


@dataclass(kw_only=True)
class TaskRun(Run):
    """As `Run`, for tasks that take turns.

    What belongs to the model (applier, cache, clock) is shared; costs, contributions, losses and
    plan are each task's own. `session` and `losses` are those of the task whose batch is at hand.

    Args:
        sessions: task → its session.
        affinity: what a step of one task does for another.
        planner: decides on shares and plans.
        serving: has the loader that serves the batches.
        task: whose batch is at hand.
        shares: share of the batches of each task.
        account: what each task got.
        losses_of: task → its training losses.
        lengths: task → batches of one pass over its data, on all ranks together.
    """

    sessions: dict[str, Session]
    affinity: AffinityMeter
    planner: TaskPlans
    serving: TaskData
    task: str = ""
    shares: dict[str, float] = field(default_factory=dict)
    account: TaskAccount = field(default_factory=TaskAccount)
    losses_of: dict[str, Losses] = field(default_factory=dict)
    lengths: dict[str, int] = field(default_factory=dict)
    _plans: dict[str, Plan] = field(default_factory=dict)
    _is_new_step: bool = True
    _passes: int = -1

    def __post_init__(self) -> None:
        self._bursts = Bursts(meter=self.affinity)
        self.losses_of = {task: Losses() for task in self.sessions}
        self.costs_of = {task: self._costs_of(session) for task, session in self.sessions.items()}
        for task, session in self.sessions.items():
            session.worth.estimates = self._credited(task)
        self._turn_to(next(iter(self.sessions)))
        planned = self.loader.planned
        self.shares = {task: n / sum(planned.values()) for task, n in planned.items()}
        self._take_stock()
        self.session.caches.epoch_batches = self.num_samples_batches

    def _credited(self, task: str) -> Any:
        def estimates() -> Mapping[str, float]:
            return task_worth(self.affinity.estimates(), task, self.planner.weights)

        return estimates

    @property
    def num_samples_batches(self) -> int:
        """Batches that hold every sample once; tasks may ask about the same ones."""
        lengths = self.lengths.values()
        return max(lengths) if self.planner.settings.same_samples else sum(lengths)

    def begin_epochs(self, num_batches: int) -> None:
        """The data has a known length."""
        num_batches *= self.ranks.size
        self.steps_per_epoch = steps_per_epoch = math.ceil(num_batches / self.batches_per_step)
        for task, losses in self.losses_of.items():
            losses.window = max(1, round(steps_per_epoch * self.shares[task] / 20))

    # -- turns ---------------------------------------------------------------------------------

    def _turn_to(self, task: str) -> None:
        self.task, self.session, self.losses = task, self.sessions[task], self.losses_of[task]
        self.costs = self.costs_of[task]
        self.clock.turn_to(task)

    @contextmanager
    def as_task(self, task: str) -> Iterator[None]:
        """As if a batch of `task` were at hand."""
        now = self.task
        self._turn_to(task)
        try:
            yield
        finally:
            self._turn_to(now)

    @property
    def limits(self) -> Limits:
        """What is left for the rest of the run."""
        return limits_of(self)

    @property
    def steps_ahead(self) -> float:
        """Optimizer steps that what is left buys, as plans and shares stand."""
        limits, cost = self.limits, self.cost_per_batch * self.batches_per_step
        return limits.steps(cost) if cost > 0 else 0.0

    def pass_steps(self, task: str) -> int:
        """Optimizer steps of one pass over the data of a task."""
        return max(1, math.ceil(self.lengths[task] / self.batches_per_step))

    @property
    def _seen(self) -> list[str]:
        """Tasks of which a batch was booked."""
        return [task for task in self.sessions if self.account.batches.get(task)]

    def see_scores(self, scores: Mapping[str, float]) -> None:
        """A validation has ended: what a task's loss is worth in the metric its user wants."""
        self.planner.see_scores(scores, self.account.losses)

    @property
    def loader(self) -> TaskLoader:
        """Serves the batches: another one where data were reloaded."""
        assert self.serving.loader is not None
        return self.serving.loader

    def _take_stock(self) -> None:
        """How much data each task has."""
        self.lengths = {t: n * self.ranks.size for t, n in self.loader.lengths.items()}
        self.account.reference = self.loader.data_shares

    def begin_epoch(self) -> None:
        """The loader starts anew; what counts for the cache is that every sample came by again."""
        self._take_stock()
        self.session.applier.refresh()

    def _count_pass(self) -> None:
        """Tell the cache when every sample has come by once more."""
        served = self.account.batches
        if self.planner.settings.same_samples:
            passes = sum(served.values()) // self.num_samples_batches
        else:
            going = [task for task in self.lengths if self.shares[task] > 0]
            passes = min(served.get(task, 0) // self.lengths[task] for task in going)
        if passes != self._passes:
            self._passes = passes
            self.session.caches.begin_epoch()

    def begin_batch(self, batch: Any) -> None:
        """A batch starts: its task's plan takes effect."""
        (task,) = batch
        self._turn_to(task)
        self._count_pass()
        plan, applier = self.session.plan, self.session.applier
        if plan is not None and not plan.same_levels(applier.current):
            optimizers = self.session.optimizers
            applier.apply(plan, optimizers, keeps_gradients=not self._is_new_step)
        self._is_new_step = False
        super().begin_batch(batch)

    # -- what steps say ------------------------------------------------------------------------

    @property
    def is_sampled(self) -> bool:
        """Whether the coming optimizer step is one whose contributions are estimated."""
        if self.batches_per_step > 1:
            return False  # a step of several tasks' batches says nothing of either
        due = self._bursts.is_due(self.num_steps, self.shares, self.steps_per_epoch)
        return self.is_calibrating or due

    def before_step(self) -> None:
        """Call right before an optimizer step, gradients there."""
        self._bursts.before_step(self.task, self.session.optimizers, is_due=self.is_sampled)

    def after_step(self) -> None:
        """Nothing: directions are taken before the step."""

    def end_batch(
        self, *, stepped: bool, epoch: int, loss: Tensor | None = None
    ) -> Decision | None:
        """Book a batch; after an optimizer step decide if it is time to, and see what is left."""
        before = self.ledger.spent.amount
        task = self.task
        self._is_new_step = stepped
        decision = super().end_batch(stepped=stepped, epoch=epoch, loss=loss)
        if self.ranks.size == 1:
            self.account.spend(task, self.ledger.spent.amount - before, loss)
        return decision

    def _book(self, *, stepped: bool, loss: Tensor | None) -> None:  # noqa: ARG002 (of all tasks)
        """Book the batch; where several ranks train, those of all ranks, on every rank."""
        if self.ranks.size == 1:
            self._book_one(loss)
            return
        mine = self.task, self.session.tell(), None if loss is None else loss.detach().cpu()
        for task, counted, its_loss in self.ranks.gather(mine):
            with self.as_task(task):
                self.session.hear(counted)
                before = self.ledger.spent.amount
                self._book_one(its_loss)
                self.account.spend(task, self.ledger.spent.amount - before, its_loss)

    def _book_one(self, loss: Tensor | None) -> None:
        """Book a batch of the task at hand, whose step takes as many batches as any other."""
        served = self.account.batches.get(self.task, 0) + 1
        super()._book(stepped=served % self.batches_per_step == 0, loss=loss)

    def _charge(self, flops: float, full_flops: float) -> None:
        """Book a batch; the full run serves each task in proportion to its data."""
        self.account.serve(self.task, full_flops)
        mean = self.account.full_flops_per_batch
        whole = mean * (self.ledger.batches + 1)
        super()._charge(flops, whole - self.ledger.full_flops)

    # -- costs ---------------------------------------------------------------------------------

    @property
    def cost_per_batch(self) -> float:
        """Expected mean cost of the batches left under the plans in force; NaN before the first."""
        return self._mean(lambda: self.costs.mean_batch)

    def _mean(self, of: Any) -> float:
        """Mean over the tasks seen, by their shares."""
        seen = self._seen
        total = sum(self.shares[task] for task in seen)
        if not seen or not total:
            return math.nan
        costs = []
        for task in seen:
            with self.as_task(task):
                costs.append(self.shares[task] * of())
        return float(sum(costs) / total)

    def _step_cost(self) -> float:
        """What the next optimizer step may cost."""
        coming = self.loader.coming(self.batches_per_step // self.ranks.size)
        seen = self._seen
        if not seen:
            return math.nan
        is_known = bool(coming) and set(coming) <= set(seen)
        costs = []
        for name in coming if is_known else seen:
            with self.as_task(name):
                costs.append(self.costs.next_step)
        return sum(costs) / len(costs) if is_known else max(costs)

    def _at_hand(self) -> list[Plan]:
        """The plans of the tasks whose batches the ranks have; none before there are any."""
        tasks = (self.task,) if self.ranks.size == 1 else self.loader.turn
        plans = [self.sessions[task].plan for task in tasks]
        return [plan for plan in plans if plan is not None]

    def _planned_step(self) -> float:
        plans = self._at_hand()
        return sum(p.cost_per_step for p in plans) / len(plans) if plans else self._step_cost()

    @property
    def lr_factor(self) -> float:
        """Factor of the learning rate under the plans in force, of which ranks take the mean."""
        plans = self._at_hand()
        return sum(plan.lr_factor for plan in plans) / len(plans) if plans else 1.0

    # -- decisions -----------------------------------------------------------------------------

    def _is_calibrated(self) -> bool:
        """Every task was seen, and steps enough for a first look at what one does for another."""
        wanted = max(self._calibration_end(), len(self.sessions))
        return len(self._seen) == len(self.sessions) and self.num_steps >= wanted

    def _calibration_end(self) -> int:
        most = BURST * len(self.sessions)
        step = self._mean(lambda: self.costs.next_step)
        affordable = (self.ledger.remaining + self.num_steps * step) / step
        return max(1, min(max(most, self.calibration_steps), math.floor(affordable / 20)))

    def _put_full(self, epoch: int, why: str) -> Decision:
        plans = {task: replace(s.full_plan, task=task) for task, s in self.sessions.items()}
        return self._put_all(plans, epoch, why)

    def _put_best(self, epoch: int, why: str) -> Decision:
        found = self.planner.solve(self)
        if self.ranks.size > 1:  # they found the same, unless what users log differs
            found = TaskDecision.from_dict(self.ranks.agree(found.to_dict()))
        self.shares = dict(found.shares)
        self.loader.set_shares(self.shares)
        return self._put_all(found.plans, epoch, why)

    def _fit_seconds(self) -> None:
        full = 0.0
        for task in self._seen:
            with self.as_task(task):
                self.costs.fit_seconds()
            full += self.account.reference[task] * self.ledger.full_seconds_per_batch
        self.ledger.full_seconds_per_batch = full

    def _put_all(self, plans: Mapping[str, Plan], epoch: int, why: str) -> Decision:
        decision = None
        for task, plan in plans.items():
            with self.as_task(task):
                decision = self._put(with_rate(self, plan), epoch, why)
                self.session.plan = decision.plan
        assert decision is not None
        self.plan_steps_left = self._steps_until_next(decision.plan)
        self.once_left = self.once_per_step = 0.0
        return decision

    def _steps_until_next(self, plan: Plan) -> int | None:  # noqa: ARG002 (of all tasks)
        if self.dimension is Dimension.FLOP:
            return None
        per_step = self.cost_per_batch * self.batches_per_step
        left = self.ledger.remaining / per_step if per_step > 0 else math.inf
        return max(10, int(left / 4)) if math.isfinite(left) else None

    @property
    def latest(self) -> tuple[Decision, ...]:
        """The last decision of each task, those taken at the same time."""
        return tuple(self.history[-len(self.sessions) :])

    def close(self) -> None:
        """Leave no trace on the model."""
        for session in self.sessions.values():
            session.close()

    # -- checkpoints ---------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Plain data for a checkpoint."""
        first = next(iter(self.sessions))
        with self.as_task(first):
            state = super().state_dict()
        return {
            **state,
            "sessions": {task: s.state_dict() for task, s in self.sessions.items()},
            "plans": {
                task: None if s.plan is None else s.plan.to_dict()
                for task, s in self.sessions.items()
            },
            "losses_of": {task: x.state_dict() for task, x in self.losses_of.items()},
            "affinity": self.affinity.state_dict(),
            "planner": self.planner.state_dict(),
            "account": self.account.state_dict(),
            "shares": dict(self.shares),
            "step": (self._is_new_step, self._bursts.is_on, self._passes),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave.

        Raises:
            ValueError: the tasks are not those of the checkpoint.
        """
        odd = sorted(set(state["sessions"]) ^ set(self.sessions))
        if odd:
            msg = (
                f"Expected the tasks of the checkpoint ({', '.join(state['sessions'])}), but these "
                f"are only in one of the two: {', '.join(odd)}. Resume with the same tasks; to add "
                "or drop one, start a new run from the weights."
            )
            raise ValueError(msg)
        for task, session in self.sessions.items():
            session.load_state_dict(state["sessions"][task])
            self.losses_of[task].load_state_dict(state["losses_of"][task])
        self.affinity.load_state_dict(state["affinity"])
        self.planner.load_state_dict(state["planner"])
        self.account.load_state_dict(state["account"])
        self.shares = dict(state["shares"])
        self._is_new_step, self._bursts.is_on, self._passes = state["step"]
        self._plans = {t: Plan.from_dict(p) for t, p in state["plans"].items() if p is not None}
        with self.as_task(next(iter(self.sessions))):
            super().load_state_dict(state)

    def _resume_plans(self) -> None:
        for task, plan in self._plans.items():
            self.sessions[task].resume(plan)
