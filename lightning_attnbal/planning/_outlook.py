"""One budget: the frontier, where each of its plans is forecast to end, and the first plan."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from lightning_attnbal.allocate import (
    Forecast,
    ForecastAllocator,
    Limits,
    Outcome,
    Progress,
    Solution,
    frontier,
    full_levels,
    trained_units,
)
from lightning_attnbal.core import (
    CACHED,
    FROZEN,
    Level,
    Plan,
    Problem,
    Quantity,
)

Levels = tuple[Level, ...]

_ROUNDING = 1e-6  # steps: shares of sums need not come out whole


@dataclass(frozen=True, slots=True)
class PlanPoint:
    """A plan of the frontier, what it costs, and where it is forecast to end.

    Args:
        plan: with the cost of a step, the steps the budget buys, and the forecast.
        share: cost of a step, once its cache is full, over that of training everything.
        share_uncached: the same with cached units frozen: what a step costs while the cache fills.
        epochs: passes over the data in those steps.
        is_open: whether it may be chosen: it is not if it freezes a unit that was never trained.
    """

    plan: Plan
    share: float
    share_uncached: float
    epochs: float
    is_open: bool = True

    @property
    def loss(self) -> float:
        """Forecast mean, at the end of the budget."""
        return self.plan.forecast[0] if self.plan.forecast is not None else math.nan

    @property
    def error(self) -> float:
        """Standard deviation of the forecast."""
        return self.plan.forecast[1] if self.plan.forecast is not None else math.nan

    @property
    def depth(self) -> int:
        """Place of the lowest unit that trains, forward order."""
        return next(i for i, level in enumerate(self.plan.values()) if level.is_trained)

    def to_dict(self) -> dict[str, Any]:
        """Plain data that JSON can hold."""
        return {
            "plan": self.plan.to_dict(),
            "share": self.share,
            "share_uncached": self.share_uncached,
            "epochs": self.epochs,
            "is_open": self.is_open,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetOutlook:
    """What a budget buys.

    Args:
        budget: as it was asked for.
        limit: what that is, in FLOPs or seconds.
        full_step: cost of a step that trains everything.
        full_steps: steps of the full run.
        calibration_steps: steps that train everything first, charged.
        points: the frontier, cheapest first, then plain full training unless memory forbids it.
        begin: the plan that the balancer would begin with after those.
        best: place of the point with the lowest forecast among those that may be chosen.
        gain: mean and standard deviation of how much lower `best` is forecast to end than full
            training for fewer steps; curve by curve, so narrower than the two forecasts. None where
            full training does not fit the memory.
        is_whole: whether the budget is all of the full run: nothing is balanced then.
    """

    budget: str
    limit: Quantity
    full_step: float
    full_steps: int
    calibration_steps: int
    points: tuple[PlanPoint, ...]
    begin: Plan
    best: int
    gain: tuple[float, float] | None
    is_whole: bool = False

    @property
    def verdict(self) -> str:
        """What to expect, in a sentence."""
        if self.gain is None:
            return "Full training does not fit the memory; there is nothing to compare with."
        gain, error = self.gain
        by = f"{gain:.3g} ± {error:.1g}"
        if self.is_whole:
            text = "All of the full run: it is left as it is, nothing is balanced."
            return f"{text} A shallower plan is forecast {by} lower." if gain > error else text
        if self.points[self.best] is self.points[-1]:
            return "No gain expected: full training for fewer steps."
        if gain <= error:
            return f"Hardly a gain expected: {by} below full training for fewer steps."
        return f"Gain expected: the loss ends {by} below full training for fewer steps."

    def by_depth(self) -> list[PlanPoint]:
        """For each depth the point with the best forecast that may be chosen; cheapest first.

        `best` and `begin` are always among them.
        """
        kept: dict[int, PlanPoint] = {}
        for point in sorted(self.points, key=lambda p: (not p.is_open, p.loss, -p.plan.value)):
            kept.setdefault(point.depth, point)
        always = [p for p in self.points if self.is_first(p)]
        chosen = [*kept.values(), self.points[self.best], *always]
        return [point for point in self.points if any(point is other for other in chosen)]

    def is_first(self, point: PlanPoint) -> bool:
        """Whether this is the plan to begin with, cached or not."""
        return point.plan.trained == self.begin.trained and all(
            level == other or {level, other} == {CACHED, FROZEN}
            for level, other in zip(point.plan.values(), self.begin.values(), strict=True)
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain data that JSON can hold."""
        return {
            "budget": self.budget,
            "limit": self.limit.amount,
            "unit": self.limit.dimension.value,
            "full_step": self.full_step,
            "full_steps": self.full_steps,
            "calibration_steps": self.calibration_steps,
            "points": [point.to_dict() for point in self.points],
            "begin": self.begin.to_dict(),
            "best": self.best,
            "gain": None if self.gain is None else list(self.gain),
            "is_whole": self.is_whole,
            "verdict": self.verdict,
        }


def look_at(
    problem: Problem, limits: Limits, progress: Progress, allocator: ForecastAllocator
) -> tuple[list[PlanPoint], list[Outcome], bool]:
    """The frontier with full training last, their forecasts, and whether full training fits.

    Args:
        problem: menus and contributions.
        limits: what is left after calibration.
        progress: what calibration trained, and which units are new.
        allocator: whose belief about learning curves counts.
    """
    prior, epoch = allocator.prior, limits.epoch_steps or 1
    has_end = limits.max_steps is not None
    forecast = Forecast(problem, progress, epoch, prior, has_end=has_end)
    full = full_levels(problem)
    solutions = frontier(problem, memory=limits.memory, resolution=allocator.resolution)
    rest = [solution for solution in solutions if solution.levels[0] != full]
    full_cost, _, full_memory = problem.evaluate(full)
    fits = limits.memory is None or full_memory <= limits.memory
    found = [_point(problem, limits, forecast, s.levels[0], full_cost, s) for s in rest]
    if fits:
        found.append(_point(problem, limits, forecast, full, full_cost))
    fresh = progress.must_train(problem)
    learns = [fresh <= set(point.plan.trained) for point, _ in found]
    points = [
        replace(point, is_open=(point.plan.num_steps or 0) >= 1 and (good or not any(learns)))
        for (point, _), good in zip(found, learns, strict=True)
    ]
    return points, [outcome for _, outcome in found], fits


def _point(
    problem: Problem,
    limits: Limits,
    forecast: Forecast,
    levels: Levels,
    full_cost: float,
    solution: Solution | None = None,
) -> tuple[PlanPoint, Outcome]:
    """A plan as it would be run: cached where that buys more steps."""
    cost, value, _ = problem.evaluate(levels)
    thawed = tuple(FROZEN if level == CACHED else level for level in levels)
    uncached = problem.evaluate(thawed)[0]
    steps, plain = limits.steps(cost, problem.one_off(levels)), limits.steps(uncached)
    names = [menu.unit for menu in problem.menus]
    outcome = forecast(trained_units(problem, levels), max(steps, plain))
    plan = Plan(
        dict(zip(names, levels if steps >= plain else thawed, strict=True)),
        cost_per_step=cost if steps >= plain else uncached,
        num_steps=math.floor(max(steps, plain) + _ROUNDING),
        value=value,
        bound=value if solution is None else solution.bound,
        shadow_price=0.0 if solution is None else solution.shadow_price,
        method="full" if solution is None else "frontier",
        forecast=(outcome.mean, outcome.std),
    )
    epochs = max(steps, plain) / (limits.epoch_steps or 1)
    return PlanPoint(plan, cost / full_cost, uncached / full_cost, epochs), outcome


def best_of(points: Sequence[PlanPoint], outcomes: Sequence[Outcome]) -> int | None:
    """The point with the lowest forecast among those that may be chosen."""
    able = [i for i, point in enumerate(points) if point.is_open]
    return min(able, key=lambda i: (outcomes[i].mean, -points[i].plan.value), default=None)
