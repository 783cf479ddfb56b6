"""One model and full run, asked for the outlook of one budget after the other."""

from __future__ import annotations

from dataclasses import dataclass, replace

from lightning_attnbal.allocate import ForecastAllocator, Limits, Progress, Segment, full_levels
from lightning_attnbal.apply import CacheSettings
from lightning_attnbal.core import (
    CACHED,
    Budget,
    Dimension,
    Level,
    Plan,
    Problem,
    Quantity,
    UnitLoad,
)
from lightning_attnbal.measure import build_problem
from lightning_attnbal.planning._caching import caching_terms
from lightning_attnbal.planning._calibration import calibration_steps
from lightning_attnbal.planning._contributions import Contributions
from lightning_attnbal.planning._outlook import BudgetOutlook, best_of, look_at


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What all budgets share.

    Args:
        loads: units, forward order.
        fixed: FLOPs per step outside of all units.
        worth: contributions and the first loss.
        fresh: names of units that were never trained.
        levels: which levels a unit may get.
        cache: room for what cached units computed.
        epoch_steps: steps per epoch.
        full_steps: steps of the full run.
        allocator: decides, and holds the belief about learning curves.
    """

    loads: tuple[UnitLoad, ...]
    fixed: float
    worth: Contributions
    fresh: frozenset[str]
    levels: tuple[Level, ...]
    cache: CacheSettings
    epoch_steps: int
    full_steps: int
    allocator: ForecastAllocator

    def outlook(self, budget: Budget) -> BudgetOutlook:
        """What one budget buys.

        Raises:
            InfeasibleBudgetError: not one step of any plan.
        """
        dimension = budget.dimension
        problem = self._problem(dimension)
        full = full_levels(problem)
        full_step = problem.evaluate(full)[0]
        limit = budget.resolve(Quantity(full_step * self.full_steps, dimension))
        calibration = calibration_steps(limit.amount / full_step, dimension)
        limits = Limits(
            remaining=max(0.0, limit.amount - calibration * full_step),
            max_steps=max(1, self.full_steps - calibration),
            epoch_steps=self.epoch_steps,
            memory=None if budget.memory is None else budget.memory.amount,
            cost_unit="GFLOP" if dimension is Dimension.FLOP else "s",
            cost_scale=1e9 if dimension is Dimension.FLOP else 1.0,
        )
        names = tuple(self.worth.values)
        seen = Segment(trained=names, steps=calibration, loss=self.worth.loss)
        progress = Progress(segments=(seen,), fresh=self.fresh)
        points, outcomes, full_fits = look_at(problem, limits, progress, self.allocator)
        best = best_of(points, outcomes)
        if best is None:
            cheapest = min(point.plan.cost_per_step for point in points)
            step = "a step of the cheapest plan"
            raise limits.infeasible(
                cheapest, f"{step}, after {calibration} of calibration, from {budget}"
            )
        is_whole = budget.is_fraction and budget.limit.amount == 1.0 and budget.memory is None
        begin = self.allocator(problem, limits, None, progress)
        return BudgetOutlook(
            budget=str(budget),
            limit=limit,
            full_step=full_step,
            full_steps=self.full_steps,
            calibration_steps=calibration,
            points=tuple(points),
            begin=_whole(points[-1].plan) if is_whole else begin,
            best=best,
            gain=outcomes[-1].above(outcomes[best]) if full_fits else None,
            is_whole=is_whole,
        )

    def _problem(self, dimension: Dimension) -> Problem:
        is_timed = dimension is Dimension.SECOND
        with self.cache.open() as store:
            terms = caching_terms(self.loads, store, self.epoch_steps, is_timed=is_timed)
        return build_problem(
            self.loads,
            self.worth.values,
            self.levels,
            dimension=dimension,
            fixed=0.0 if is_timed else self.fixed,
            caching=terms if CACHED in self.levels else {},
        )


def _whole(plan: Plan) -> Plan:
    return replace(plan, method="a budget of 100 % leaves the run as it is")
