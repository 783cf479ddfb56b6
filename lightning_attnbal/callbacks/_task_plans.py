"""Who gets the next steps, and what trains while they do: decided for all tasks together."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from lightning.pytorch.utilities import rank_zero_warn
from typing_extensions import override

from lightning_attnbal.allocate import (
    Allocator,
    Choice,
    ForecastAllocator,
    FullAllocator,
    Limits,
    Progress,
    trained_units,
)
from lightning_attnbal.callbacks._exchange import exchange_rate
from lightning_attnbal.callbacks._task_settings import TaskSettings
from lightning_attnbal.core import Level, Menu, Plan, Problem
from lightning_attnbal.multitask import (
    Outlook,
    TaskSolution,
    TaskTerms,
    allocate_tasks,
    forecast_gain,
    help_from_others,
)

if TYPE_CHECKING:
    from lightning_attnbal.callbacks._session import Session
    from lightning_attnbal.callbacks._task_run import TaskRun


Levels = tuple[Level, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskDecision:
    """Shares and plans for the rest of the run.

    Args:
        shares: task → share of the batches.
        plans: task → plan.
    """

    shares: dict[str, float]
    plans: dict[str, Plan]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for other processes."""
        return {"shares": self.shares, "plans": {t: p.to_dict() for t, p in self.plans.items()}}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> TaskDecision:
        """Restore what `to_dict` gave."""
        plans = {task: Plan.from_dict(plan) for task, plan in data["plans"].items()}
        return cls(shares=dict(data["shares"]), plans=plans)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Given(Allocator):
    """A choice that was made elsewhere, priced and explained like any other."""

    choice: Choice

    @override
    def allocate(
        self, problem: Problem, limits: Limits, current: Plan | None, progress: Progress
    ) -> Choice:
        return self.choice


@dataclass(kw_only=True)
class TaskPlans:
    """Solves R[task, unit] for what is left of a run.

    Args:
        settings: what the user wants of the tasks.
        tasks: their names.
        validations: task → (training loss, metric) when each validation ran.
        reasons: task → why it got its share, at the last decision.
    """

    settings: TaskSettings
    tasks: tuple[str, ...]
    validations: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    _missing: set[str] = field(default_factory=set)

    @property
    def weights(self) -> dict[str, float]:
        """How much each task's gain counts."""
        return {task: self.settings.weight(task) for task in self.tasks}

    def see_scores(self, scores: Mapping[str, float], losses: Mapping[str, float]) -> None:
        """A validation has ended."""
        for task, (metric, _) in self.settings.metrics.items():
            if metric not in scores:
                self._warn_of(task, metric, scores)
            elif task in losses:
                self.validations.setdefault(task, []).append((losses[task], scores[metric]))

    def _warn_of(self, task: str, metric: str, scores: Mapping[str, float]) -> None:
        """Say once that a metric is not there."""
        if metric not in self._missing:
            self._missing.add(metric)
            there = ", ".join(sorted(scores)) or "none"
            rank_zero_warn(
                f"Validation logged no finite {metric!r}, in which the gain of task {task!r} is to "
                f"be counted; it logged: {there}. Until it does, gains are counted in shares of "
                "the first loss."
            )

    def solve(self, run: TaskRun) -> TaskDecision:
        """Shares and plans; the plans in force stay unless others gain clearly more.

        Raises:
            InfeasibleBudgetError: what is left buys not one step.
        """
        limits = _of_use(run)
        affinity = _affinity(run)
        shares = run.shares
        terms: list[TaskTerms] = []
        found: TaskSolution | None = None
        for _ in range(2):  # what others do for a task depends on the shares, and they on it
            terms = [self._terms(run, task, shares, affinity) for task in self.tasks]
            if isinstance(run.allocator, FullAllocator):
                terms = [
                    _only(term, run.sessions[task].full_plan)
                    for task, term in zip(self.tasks, terms, strict=True)
                ]
            found = self._best(run, terms, limits)
            shares = dict(found.shares)
        assert found is not None
        return self._decision(terms, found, limits)

    def _best(self, run: TaskRun, terms: list[TaskTerms], limits: Limits) -> TaskSolution:
        best = self._allocate(terms, limits)
        now = [run.sessions[task].plan for task in self.tasks]
        stay = [
            _only(term, plan) if plan is not None and _offers(term.problem, plan) else None
            for term, plan in zip(terms, now, strict=True)
        ]
        kept = [term for term in stay if term is not None]
        if len(kept) < len(stay) or not run.history:
            return best
        settled = min(1.0, run.num_steps / (run.steps_per_epoch or 1))
        try:
            same = self._allocate(kept, limits)
        except ValueError:  # the plans in force no longer fit what is left
            return best
        margin = self.settings.hysteresis * abs(same.value)
        plans = [best.plans[task] if best.shares[task] else None for task in self.tasks]
        # what steps to the end would leave of the budget buys nothing else: then no margin holds
        is_whole_run = limits.max_steps is not None and same.steps > limits.max_steps - 1
        if not is_whole_run and any(map(_thaws, terms, now, plans)):
            weights = self.weights.values()
            whole = sum(weights) if self.settings.objective == "sum" else max(weights)
            margin = max(margin, _forecaster(run).thaw_margin * whole)
        return same if best.value <= same.value + settled * margin else best

    def _allocate(self, terms: list[TaskTerms], limits: Limits) -> TaskSolution:
        s = self.settings
        return allocate_tasks(terms, limits, objective=s.objective, grid=s.grid)

    def _terms(
        self,
        run: TaskRun,
        task: str,
        shares: Mapping[str, float],
        affinity: Mapping[tuple[str, str], float],
    ) -> TaskTerms:
        session = run.sessions[task]
        part = run.account.reference[task]
        problem = session.problem(run.dimension, run.batches_per_step)
        problem = _with_part_of_filling(replace(problem, task=task), part)
        progress = run.losses_of[task].progress(session.fresh)
        per_step = run.batches_per_step
        done = {t: n / per_step for t, n in run.account.batches.items()}
        ahead = run.steps_ahead
        outlook = Outlook(
            progress=progress,
            epoch_steps=run.pass_steps(task),
            helped=help_from_others(task, done, affinity),
            coming=help_from_others(task, {t: ahead * s for t, s in shares.items()}, affinity),
            scale=self._scale(task, progress),
            prior=_forecaster(run).prior,
            has_end=run.limits.max_steps is not None,
        )
        low, high = self.settings.bounds(run.account.reference)[task]
        return TaskTerms(
            problem=problem,
            weight=self.settings.weight(task),
            floor=low,
            cap=high,
            gain=forecast_gain(problem, outlook),
            epoch_steps=max(1, round(part * run.num_samples_batches / per_step)),
        )

    def _scale(self, task: str, progress: Progress) -> float:
        """Loss that counts as 1: what a metric's unit is worth, or the task's first loss."""
        if task in self.settings.metrics:
            seen = self.validations.get(task, [])
            rate = exchange_rate(
                [x for x, _ in seen], [y for _, y in seen], self.settings.metrics[task][1]
            )
            if rate is not None:
                return 1.0 / rate
        first = next((s.loss for s in progress.segments if math.isfinite(s.loss)), 1.0)
        return first if first > 0 else 1.0

    def _decision(
        self, terms: list[TaskTerms], found: TaskSolution, limits: Limits
    ) -> TaskDecision:
        plans = {}
        for task, term in zip(self.tasks, terms, strict=True):
            steps = found.num_steps[task]
            alone = _loss_change(term, found.plans[task], steps)
            words = f"{found.shares[task]:.0%} of the steps, {steps}: {alone}"
            choice = Choice(
                levels=found.plans[task],
                method=f"tasks: {words}",
                shadow_price=found.shadow_price,
                bound=term.problem.evaluate(found.plans[task])[1],
                num_steps=max(1, steps),
            )
            plans[task] = _Given(choice=choice)(term.problem, limits)
            self.reasons[task] = words
        return TaskDecision(shares=dict(found.shares), plans=plans)

    def state_dict(self) -> dict[str, Any]:
        """Plain data for a checkpoint."""
        return {"validations": {task: list(seen) for task, seen in self.validations.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self.validations = {
            t: [(x, y) for x, y in seen] for t, seen in state["validations"].items()
        }


def _offers(problem: Problem, plan: Plan) -> bool:
    return problem.offers(tuple(plan[menu.unit] for menu in problem.menus))


def _only(term: TaskTerms, plan: Plan) -> TaskTerms:
    """The task with this plan as its only choice."""
    menus = tuple(
        Menu(menu.unit, tuple(o for o in menu.options if o.level == plan[menu.unit]))
        for menu in term.problem.menus
    )
    return replace(term, problem=replace(term.problem, menus=menus))


def _thaws(term: TaskTerms, plan: Plan | None, levels: Levels | None) -> bool:
    """Whether units would train that do not train now; not where a task gets no steps."""
    if plan is None or levels is None:
        return False
    return not trained_units(term.problem, levels) <= set(plan.trained)


def _forecaster(run: TaskRun) -> ForecastAllocator:
    """Whose belief about learning curves counts."""
    own = run.allocator
    return own if isinstance(own, ForecastAllocator) else ForecastAllocator()


def _loss_change(term: TaskTerms, levels: Levels, steps: int) -> str:
    """What the steps are forecast to gain, in words."""
    assert term.gain is not None
    (gain,) = term.gain(levels, np.array([float(max(1, steps))]))
    return f"forecast gain {gain:.2g}"


def _with_part_of_filling(problem: Problem, part: float) -> Problem:
    """The problem of a task whose steps fill this part of the cache."""
    menus = tuple(
        Menu(menu.unit, tuple(replace(o, once=o.once * part) for o in menu.options))
        for menu in problem.menus
    )
    return replace(problem, menus=menus)


def _of_use(run: TaskRun) -> Limits:
    """What is left; without an end of its own no more passes than are believed to help."""
    limits = run.limits
    if limits.max_steps is not None or any(map(_is_from_scratch, run.sessions.values())):
        return limits
    passes = sum(run.pass_steps(task) for task in run.sessions) * _forecaster(run).prior.passes
    return replace(limits, max_steps=max(1, math.ceil(passes - run.num_steps)))


def _is_from_scratch(session: Session) -> bool:
    units = [unit.name for unit in session.units]
    return Progress(fresh=session.fresh).is_from_scratch(units)


def _affinity(run: TaskRun) -> dict[tuple[str, str], float]:
    """(i, k) → what a step of i is worth to k, against a step of k; 0 within its error."""
    matrix, errors = run.affinity.affinity()
    sure = np.where(np.abs(matrix) > errors, matrix, 0.0)
    tasks = run.planner.tasks
    return {(i, k): float(sure[a, b]) for a, i in enumerate(tasks) for b, k in enumerate(tasks)}
