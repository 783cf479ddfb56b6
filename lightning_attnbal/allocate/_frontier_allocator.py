"""The default: the point of the frontier that makes the most of what is left."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from typing_extensions import override

from lightning_attnbal.allocate._allocator import Allocator, Choice
from lightning_attnbal.allocate._frontier import frontier
from lightning_attnbal.allocate._levels import Levels
from lightning_attnbal.allocate._limits import Limits
from lightning_attnbal.core import (
    CACHED,
    FROZEN,
    InfeasibleBudgetError,
    Plan,
    Problem,
    check_integer,
    check_number,
)

_LEAST_SAVING = 0.02
_MOST = 3.0  # 1 - exp(-3) = 95 % of what any number of passes would bring


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontierAllocator(Allocator):
    """Picks the point of the exact frontier with the largest V(p)^substitution · m(n(p)).

    V(p) is the plan's contribution per step in loss units and n(p) the steps it gets: at most
    max_steps, and so many that with their one-off cost (filling a cache) they do not exceed what
    remains. Where caching saves less than `_LEAST_SAVING` of the plan's cost, because too few
    passes over the data are left, the cached units are frozen instead. Contributions of layers overlap, so their plain sum (substitution = 1)
    overrates deep plans; a smaller exponent trusts the sum less and the number of steps more.
    Steps on data seen many times teach little: m(n) = S · (1 - exp(-n / S)), where S are the steps
    of `passes` epochs; m(n) = n if the length of an epoch is not known.
    Plans of no value score 0; if no plan has any, the most valuable one is chosen. Where all steps
    at the chosen plan would leave budget unspent, the next dearer plan of the frontier goes first,
    for as many steps as the rest pays for.

    Args:
        substitution: exponent in (0, 1]: "only steps count" near 0, "layers add up" at 1.
        passes: passes over the data that are still worth about their number, in (0, inf).
        hysteresis: a new plan must beat the current one's score by more than this share, in
            [0, inf); 0.1 because switching costs (compile, optimizer state) and the measured
            contributions are noisy.
        resolution: cells of cost on the frontier, in [1, inf).

    Raises:
        TypeError: a setting is not a number.
        ValueError: a setting is out of range.

    Source: own; it follows from measurements in which accuracy at short budgets depended on steps
        and hardly on depth.

    Example:
        >>> from lightning_attnbal.core import FROZEN, FULL, Menu, Option
        >>> menu = (Option(level=FROZEN, cost=1, cost_above=1),
        ...         Option(level=FULL, cost=2, cost_above=1, value=3))
        >>> problem = Problem((Menu("low", menu), Menu("high", menu)))
        >>> allocate = FrontierAllocator()
        >>> plan = allocate(problem, Limits(remaining=30))
        >>> print(plan, plan.num_steps)
        frozen: low · full: high 10
        >>> print(allocate(problem, Limits(remaining=30, max_steps=6)))
        full: low, high
    """

    substitution: float = 0.5
    passes: float = 4.0
    hysteresis: float = 0.1
    resolution: int = 1000

    def __post_init__(self) -> None:
        check_number("substitution", self.substitution, low=0, high=1, low_open=True)
        check_number("passes", self.passes, low=0, low_open=True)
        check_number("hysteresis", self.hysteresis, low=0)
        check_integer("resolution", self.resolution, low=1)

    @override
    def allocate(self, problem: Problem, limits: Limits, current: Plan | None) -> Choice:
        points = frontier(problem, memory=limits.memory, resolution=self.resolution)
        affordable = [point for point in points if point.cost <= limits.remaining]
        if not affordable:
            raise InfeasibleBudgetError(limits.remaining, points[0].cost, limits.cost_unit)
        candidates = [_Candidate.of(problem, point.levels[0], limits) for point in affordable]
        candidates = self._deep_enough(candidates, limits)
        best = max(candidates, key=lambda c: (self._score(c, limits), c.value))
        kept = self._kept(problem, limits, current, self._score(best, limits))
        deeper, num_steps = _spend_the_rest(candidates, kept or best, limits)
        if deeper is not None:
            method = "frontier: dearer first, to use the budget up"
            return Choice(levels=deeper.levels, method=method, num_steps=num_steps)
        if kept is not None:
            return Choice(levels=kept.levels, method="frontier: kept the current plan")
        proofs = {point.levels[0]: (point.bound, point.shadow_price) for point in points}
        bound, price = proofs.get(best.levels, (None, None))
        method = f"frontier: V^{self.substitution:g} · steps"
        return Choice(levels=best.levels, method=method, bound=bound, shadow_price=price)

    def _deep_enough(self, candidates: list[_Candidate], limits: Limits) -> list[_Candidate]:
        """Without an end of its own, a run has plans only that can use its budget.

        Others would go over the data more than `_MOST` · `passes` times.
        """
        if limits.max_steps is not None or limits.epoch_steps is None:
            return candidates
        most = _MOST * self.passes * limits.epoch_steps
        deep = [c for c in candidates if limits.steps(c.cost, c.once) <= most]
        return deep or candidates[-1:]

    def _kept(
        self, problem: Problem, limits: Limits, current: Plan | None, score: float
    ) -> _Candidate | None:
        """The current levels, unless they are impossible now or clearly worse than `score`."""
        kept = _still_possible(problem, limits, current)
        if kept is None:
            return None
        candidate = _Candidate.of(problem, kept, limits)
        is_close = score <= (1 + self.hysteresis) * self._score(candidate, limits)
        return candidate if is_close else None

    def score(self, cost: float, value: float, limits: Limits, once: float = 0.0) -> float:
        """max(V, 0)^substitution · m(n), n steps at `cost` each and `once` over the first ones.

        Example:
            >>> FrontierAllocator(substitution=0.5).score(2.0, 4.0, Limits(remaining=10))
            10.0
        """
        if value <= 0:
            return 0.0
        steps = limits.steps(cost, once)
        if limits.epoch_steps is not None:
            enough = self.passes * limits.epoch_steps
            steps = -enough * math.expm1(-steps / enough)
        return value**self.substitution * steps

    def _score(self, candidate: _Candidate, limits: Limits) -> float:
        return self.score(candidate.cost, candidate.value, limits, candidate.once)


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A plan, what it costs per step and once, and its value."""

    levels: Levels
    cost: float
    once: float
    value: float

    @classmethod
    def of(cls, problem: Problem, levels: Levels, limits: Limits) -> _Candidate:
        """The plan, with cached units frozen where caching would not pay in the steps left."""
        cost, value, _ = problem.evaluate(levels)
        once = problem.one_off(levels)
        thawed = tuple(FROZEN if level == CACHED else level for level in levels)
        if thawed == levels or not _has(problem, thawed):
            return cls(levels, cost, once, value)
        dearer, worth, _ = problem.evaluate(thawed)
        steps = limits.steps(cost, once)
        if math.isfinite(steps) and worth >= value and dearer >= cost:
            saved = limits.total(steps, dearer) - limits.total(steps, cost, once)
            if saved < _LEAST_SAVING * limits.total(steps, dearer):
                return cls(thawed, dearer, 0.0, worth)
        return cls(levels, cost, once, value)


def _spend_the_rest(
    candidates: Sequence[_Candidate], chosen: _Candidate, limits: Limits
) -> tuple[_Candidate | None, int]:
    """A dearer plan, and for how many steps, if all steps at the chosen one leave budget unspent.

    Between neighbours on the frontier with costs c < c', n steps at c' and S - n at c just use up
    what remains: n = (remaining - once - once' - S·c) / (c' - c), rounded down. The dearer ones
    come first, while the learning rate is high.
    """
    if limits.max_steps is None:
        return None, 0
    found: tuple[_Candidate | None, int] = (None, 0)
    at = chosen
    for dearer in sorted(candidates, key=lambda c: c.cost):
        if dearer.cost <= at.cost:
            continue
        unspent = limits.remaining - limits.total(limits.max_steps, at.cost, at.once)
        num_steps = math.floor((unspent - dearer.once) / (dearer.cost - at.cost))
        if num_steps <= 0:
            break
        found, at = (dearer, min(num_steps, limits.max_steps)), dearer
    return found


def _still_possible(problem: Problem, limits: Limits, current: Plan | None) -> Levels | None:
    """The current levels if menus, memory and budget still allow them."""
    if current is None or list(current) != [menu.unit for menu in problem.menus]:
        return None
    levels = tuple(current.values())
    if not _has(problem, levels) or problem.why_invalid(levels) is not None:
        return None
    cost, _, memory = problem.evaluate(levels)
    cost += problem.one_off(levels) / (limits.epoch_steps or 1)
    fits = cost <= limits.remaining and (limits.memory is None or memory <= limits.memory)
    return levels if fits else None


def _has(problem: Problem, levels: Levels) -> bool:
    """Whether the menus offer all of these levels."""
    return all(
        any(option.level == level for option in menu.options)
        for menu, level in zip(problem.menus, levels, strict=True)
    )
