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
    full_levels,
    trained_units,
)
from lightning_attnbal.callbacks._exchange import exchange_rate
from lightning_attnbal.callbacks._task_settings import TaskSettings
from lightning_attnbal.core import Level, Menu, Plan, Problem
from lightning_attnbal.multitask import (
    CoupledSolution,
    Equivalents,
    ForecastGain,
    Mix,
    Outlook,
    TaskTerms,
    allocate_coupled,
    help_from_others,
    step_equivalents,
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
        equivalents = step_equivalents(run.affinity.estimates(), self.tasks)
        terms = [self._terms(run, task, equivalents) for task in self.tasks]
        if isinstance(run.allocator, FullAllocator):
            terms = [
                _only(term, run.sessions[task].full_plan)
                for task, term in zip(self.tasks, terms, strict=True)
            ]
        found = self._best(run, terms, limits, equivalents)
        return self._decision(terms, found, limits)

    def _best(
        self, run: TaskRun, terms: list[TaskTerms], limits: Limits, equivalents: Equivalents
    ) -> CoupledSolution:
        best = self._allocate(run, terms, limits, equivalents)
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
            same = self._allocate(run, kept, limits, equivalents)
        except ValueError:  # the plans in force no longer fit what is left
            return best
        margin = self.settings.hysteresis * abs(same.value)
        chosen = best.solution
        plans = [chosen.plans[task] if chosen.shares[task] else None for task in self.tasks]
        # what steps to the end would leave of the budget buys nothing else: then no margin holds
        is_whole_run = limits.max_steps is not None and same.solution.steps > limits.max_steps - 1
        if not is_whole_run and any(map(_thaws, terms, now, plans)):
            weights = self.weights.values()
            whole = sum(weights) if self.settings.objective == "sum" else max(weights)
            margin = max(margin, _forecaster(run).thaw_margin * whole)
        return same if best.value <= same.value + settled * margin else best

    def _allocate(
        self, run: TaskRun, terms: list[TaskTerms], limits: Limits, equivalents: Equivalents
    ) -> CoupledSolution:
        s = self.settings
        now = _mix(run, terms)
        return allocate_coupled(terms, limits, equivalents, now, objective=s.objective, grid=s.grid)

    def _terms(self, run: TaskRun, task: str, equivalents: Equivalents) -> TaskTerms:
        session = run.sessions[task]
        part = run.account.reference[task]
        problem = session.problem(run.dimension, run.batches_per_step)
        problem = _with_part_of_filling(replace(problem, task=task), part)
        progress = run.losses_of[task].progress(session.fresh)
        per_step = run.batches_per_step
        done = {t: n / per_step for t, n in run.account.batches.items()}
        outlook = Outlook(
            progress=progress,
            epoch_steps=run.pass_steps(task),
            helped=help_from_others(task, done, equivalents),
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
            gain=ForecastGain(problem, outlook),
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
        self, terms: list[TaskTerms], coupled: CoupledSolution, limits: Limits
    ) -> TaskDecision:
        found = coupled.solution
        plans = {}
        for task, term in zip(self.tasks, terms, strict=True):
            steps = found.num_steps[task]
            gains = _gains(coupled.gains[task], found.plans[task], steps, term.weight)
            words = f"{found.shares[task]:.0%} of the steps, {steps}: {gains}"
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


def _levels(problem: Problem, plan: Plan) -> Levels:
    return tuple(plan[menu.unit] for menu in problem.menus)


def _offers(problem: Problem, plan: Plan) -> bool:
    return problem.offers(_levels(problem, plan))


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


def _gains(gain: ForecastGain, levels: Levels, steps: int, weight: float) -> str:
    """What the steps are forecast to gain, in words: the task itself, and the others together."""
    number = np.array([float(max(1, steps))])
    (all_in_all,), (own,) = gain(levels, number), gain.without_credit()(levels, number)
    others = f", for other tasks {weight * (all_in_all - own):.2g}" if all_in_all != own else ""
    return f"forecast gain {own:.2g}{others}"


def _mix(run: TaskRun, terms: list[TaskTerms]) -> Mix:
    """The steps ahead as shares and plans stand; everything trains where there is no plan yet."""
    ahead = run.steps_ahead
    plans = {}
    for term in terms:
        plan = run.sessions[term.name].plan
        levels = None if plan is None else _levels(term.problem, plan)
        is_offered = levels is not None and term.problem.offers(levels)
        plans[term.name] = levels if levels and is_offered else full_levels(term.problem)
    return Mix(steps={task: ahead * share for task, share in run.shares.items()}, plans=plans)


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
