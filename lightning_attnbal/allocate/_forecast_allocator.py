"""The default: the point of the frontier from which the run is forecast to end lowest."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from typing_extensions import override

from lightning_attnbal.allocate._allocator import Allocator, Choice
from lightning_attnbal.allocate._alternatives import few_of, in_words
from lightning_attnbal.allocate._candidate import (
    Candidate,
    plans_worth_having,
    spend_the_rest,
    still_possible,
)
from lightning_attnbal.allocate._forecast import CurvePrior, Forecast, Outcome
from lightning_attnbal.allocate._levels import full_levels, trained_units
from lightning_attnbal.allocate._limits import Limits
from lightning_attnbal.allocate._progress import Progress
from lightning_attnbal.core import (
    Alternative,
    Plan,
    Problem,
    check_integer,
    check_number,
)

_EPOCH = 1000  # steps, where the length of the data is not known


@dataclass(frozen=True, slots=True)
class _Option:
    """A candidate with its forecast."""

    candidate: Candidate
    trained: frozenset[str]
    steps: float
    outcome: Outcome

    @property
    def rank(self) -> tuple[float, float]:
        return self.outcome.mean, -self.candidate.value


@dataclass(frozen=True, slots=True, kw_only=True)
class ForecastAllocator(Allocator):
    """Picks the point of the exact frontier from which the run is forecast to end lowest.

    Candidates are the frontier (most contribution for each cost), each of its plans with cached
    units frozen where caching would not pay, and plain full training for fewer steps. Each is
    forecast (`Forecast`) for the steps that what remains would buy, its one-off cost of filling a
    cache included. A unit that was never trained (a model from scratch, a new head) is not frozen.

    The plan in force stays unless another is forecast lower by more than `hysteresis` standard
    deviations of the difference (of less in the first epoch, in proportion to how much of it is
    over: little is lost by a switch then), and, if it trains units that are not trained now, by
    more than `thaw_margin` of the first loss: what joins late disturbs what was learned on it as it
    was, has little time to make up for it, and makes each step dearer. Where all steps at the
    chosen plan would leave budget unspent, the next dearer plan goes first, or last where going
    first would spoil a full cache. Without an end of its own the run ends when the data was passed
    over `prior.passes` times, and hands the rest of the budget back; not where most units had never
    been trained.

    Args:
        prior: what is believed about learning curves before the run has shown its own.
        hysteresis: in standard deviations of the forecast difference, in [0, inf).
        thaw_margin: share of the first loss, in [0, inf).
        fits: whether the losses of the run inform the forecast.
        resolution: cells of cost on the frontier, in [1, inf).

    Raises:
        TypeError: a setting is not a number.
        ValueError: a setting is out of range.

    Source: own.

    Example:
        >>> from lightning_attnbal.core import FROZEN, FULL, Menu, Option
        >>> menu = (Option(level=FROZEN, cost=1, cost_above=1),
        ...         Option(level=FULL, cost=2, cost_above=1, value=3))
        >>> problem = Problem((Menu("low", menu), Menu("high", menu)))
        >>> allocate = ForecastAllocator()
        >>> print(allocate(problem, Limits(remaining=60, epoch_steps=50)))
        frozen: low · full: high
        >>> print(allocate(problem, Limits(remaining=60, max_steps=12, epoch_steps=50)))
        full: low, high
        >>> run = Progress(fresh=frozenset({"low", "high"}))
        >>> plan = allocate(problem, Limits(remaining=60, epoch_steps=50), progress=run)
        >>> print(plan, "|", plan.method)
        full: low, high | forecast: no gain expected, full training for fewer steps; ...
    """

    prior: CurvePrior = field(default_factory=CurvePrior)
    hysteresis: float = 1.0
    thaw_margin: float = 0.01
    fits: bool = True
    resolution: int = 1000

    def __post_init__(self) -> None:
        check_number("hysteresis", self.hysteresis, low=0)
        check_number("thaw_margin", self.thaw_margin, low=0)
        check_integer("resolution", self.resolution, low=1)

    @override
    def allocate(
        self, problem: Problem, limits: Limits, current: Plan | None, progress: Progress
    ) -> Choice:
        forecast = self._forecast(problem, limits, progress)
        options = self._options(problem, limits, progress, forecast)
        chosen = min(options, key=lambda option: option.rank)
        now = self._current(problem, limits, current, options, forecast)
        if now is not None and self._keeps(now, chosen, forecast.unit, limits, progress):
            chosen = now
        candidates = [option.candidate for option in options]
        first, num_steps = spend_the_rest(candidates, chosen.candidate, limits)
        is_final = False
        useful = forecast.useful_steps()
        if limits.epoch_steps and useful < chosen.steps:
            num_steps, is_final = max(1, math.ceil(useful)), True
        words = _words(problem, options, chosen)
        if first is not chosen.candidate:
            words = f"dearer first, to use the budget up; then {words}"
        return Choice(
            levels=first.levels,
            method=f"forecast: {words}",
            num_steps=num_steps,
            is_final=is_final,
            forecast=(chosen.outcome.mean, chosen.outcome.std),
            alternatives=_alternatives(problem, options, chosen),
        )

    def _forecast(self, problem: Problem, limits: Limits, progress: Progress) -> Forecast:
        seen = progress if self.fits else progress.without_losses()
        has_end = limits.max_steps is not None
        return Forecast(problem, seen, limits.epoch_steps or _EPOCH, self.prior, has_end=has_end)

    def _options(
        self, problem: Problem, limits: Limits, progress: Progress, forecast: Forecast
    ) -> list[_Option]:
        """Every candidate with its forecast.

        Raises:
            InfeasibleBudgetError: what remains buys no step of any.
        """
        plans = plans_worth_having(problem, limits, self.resolution)
        candidates = [Candidate.of(problem, levels, limits) for levels in plans]
        affordable = [c for c in candidates if c.cost <= limits.remaining]
        if not affordable:
            raise limits.infeasible(min(candidate.cost for candidate in candidates))
        options = [_option(problem, limits, forecast, c) for c in affordable]
        fresh = progress.must_train(problem)
        return [option for option in options if fresh <= option.trained] or options

    def _current(
        self,
        problem: Problem,
        limits: Limits,
        current: Plan | None,
        options: list[_Option],
        forecast: Forecast,
    ) -> _Option | None:
        """The current levels, if they are still possible.

        Of the candidates that train the same units the best one: whether the rest is cached or
        frozen may always change, it switches nothing in the optimizer.
        """
        levels = still_possible(problem, limits, current)
        if levels is None:
            return None
        option = _option(problem, limits, forecast, Candidate.of(problem, levels, limits))
        same = [other for other in options if other.candidate.trains_like(option.candidate)]
        return min([option, *same], key=lambda option: option.rank)

    def _keeps(
        self, now: _Option, best: _Option, unit: float, limits: Limits, progress: Progress
    ) -> bool:
        """Whether the current plan stays: it learns all that is new, and is not clearly worse."""
        if not progress.fresh & best.trained <= now.trained:
            return False
        worse, error = now.outcome.above(best.outcome)
        settled = min(1.0, progress.steps / (limits.epoch_steps or _EPOCH))
        margin = 0.0 if best.trained <= now.trained else self.thaw_margin * unit
        return worse <= max(settled * self.hysteresis * error, margin)


def _option(problem: Problem, limits: Limits, forecast: Forecast, candidate: Candidate) -> _Option:
    trained = trained_units(problem, candidate.levels)
    steps = limits.steps(candidate.cost, candidate.once)
    return _Option(candidate, trained, steps, forecast(trained, steps))


def _alternatives(
    problem: Problem, options: list[_Option], chosen: _Option
) -> tuple[Alternative, ...]:
    """All that was compared; the plan in force need not be on the frontier."""
    is_among = any(option is chosen for option in options)
    compared = options if is_among else [*options, chosen]
    ordered = sorted(compared, key=lambda option: option.candidate.cost)
    return tuple(
        Alternative(
            in_words(problem, option.candidate.levels),
            cost=option.candidate.cost,
            value=option.candidate.value,
            steps=option.steps,
            loss=option.outcome.mean,
            error=option.outcome.std,
            is_chosen=option is chosen,
        )
        for option in few_of(ordered, chosen)
    )


def _words(problem: Problem, options: list[_Option], chosen: _Option) -> str:
    """The forecast, beside that of training everything for fewer steps."""
    full = next((option for option in options if _is_full(problem, option)), None)
    if _is_full(problem, chosen):
        return f"no gain expected, full training for fewer steps; {_figure(chosen)}"
    beside = "" if full is None else f"; full training {_figure(full)}"
    return f"{_figure(chosen)}{beside}"


def _is_full(problem: Problem, option: _Option) -> bool:
    """Whether every unit trains as much as its menu allows."""
    return option.candidate.levels == full_levels(problem)


def _figure(option: _Option) -> str:
    outcome = option.outcome
    return f"loss {outcome.mean:.3g} ± {outcome.std:.1g} after {option.steps:.0f} more steps"
