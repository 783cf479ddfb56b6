"""The point of the frontier with the most contribution times steps; no forecast."""

from __future__ import annotations

import math
from dataclasses import dataclass

from typing_extensions import override

from lightning_attnbal.allocate._allocator import Allocator, Choice
from lightning_attnbal.allocate._candidate import Candidate, spend_the_rest, still_possible
from lightning_attnbal.allocate._frontier import frontier
from lightning_attnbal.allocate._limits import Limits
from lightning_attnbal.allocate._progress import Progress
from lightning_attnbal.core import (
    Plan,
    Problem,
    check_integer,
    check_number,
)

_MOST = 3.0  # 1 - exp(-3) = 95 % of what any number of passes would bring


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontierAllocator(Allocator):
    """Picks the point of the exact frontier with the largest V(p)^substitution · m(n(p)).

    V(p) is the plan's contribution per step in loss units and n(p) the steps it gets: at most
    max_steps, and so many that with their one-off cost (filling a cache) they do not exceed what
    remains. Contributions of layers overlap, so their plain sum (substitution = 1) overrates deep
    plans; a smaller exponent trusts the sum less and the number of steps more. Steps on data seen
    many times teach little: m(n) = S · (1 - exp(-n / S)), where S are the steps of `passes`
    epochs; m(n) = n if the length of an epoch is not known.

    Plans of no value score 0; if no plan has any, the most valuable one is chosen. Where caching
    saves less than 2 % of a plan's cost, because too few passes over the data are left, its cached
    units are frozen instead. A run without an end of its own does not get a plan so shallow that it
    would take more than 3 · S steps. Where all steps at the chosen plan would leave budget unspent,
    the next dearer plan of the frontier goes first, for as many steps as the rest pays for, or
    last, where going first would spoil a full cache.

    Args:
        substitution: exponent in (0, 1]: "only steps count" near 0, "layers add up" at 1.
        passes: passes over the data that are still worth about their number, in (0, inf). Its
            default and that of `substitution` were set by hand, together, after a few runs of one
            encoder on two sets of texts: a prior, not a fit.
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

    substitution: float = 0.55
    passes: float = 1.5
    hysteresis: float = 0.1
    resolution: int = 1000

    def __post_init__(self) -> None:
        check_number("substitution", self.substitution, low=0, high=1, low_open=True)
        check_number("passes", self.passes, low=0, low_open=True)
        check_number("hysteresis", self.hysteresis, low=0)
        check_integer("resolution", self.resolution, low=1)

    @override
    def allocate(
        self, problem: Problem, limits: Limits, current: Plan | None, progress: Progress
    ) -> Choice:
        points = frontier(problem, memory=limits.memory, resolution=self.resolution)
        affordable = [point for point in points if point.cost <= limits.remaining]
        if not affordable:
            raise limits.infeasible(points[0].cost)
        candidates = [Candidate.of(problem, point.levels[0], limits) for point in affordable]
        candidates = self._deep_enough(candidates, limits)
        best = max(candidates, key=lambda c: (self._score(c, limits), c.value))
        kept = self._kept(problem, limits, current, self._score(best, limits))
        chosen = kept or best
        first, num_steps = spend_the_rest(candidates, chosen, limits)
        if first is not chosen:
            method = "frontier: dearer first, to use the budget up"
            return Choice(levels=first.levels, method=method, num_steps=num_steps)
        if kept is not None:
            method = "frontier: kept the current plan"
            return Choice(levels=kept.levels, method=method, num_steps=num_steps)
        proofs = {point.levels[0]: (point.bound, point.shadow_price) for point in points}
        bound, price = proofs.get(best.levels, (None, None))
        method = f"frontier: V^{self.substitution:g} · steps"
        return Choice(
            levels=best.levels,
            method=method,
            bound=bound,
            shadow_price=price,
            num_steps=num_steps,
        )

    def _deep_enough(self, candidates: list[Candidate], limits: Limits) -> list[Candidate]:
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
    ) -> Candidate | None:
        """The current levels, unless they are impossible now or clearly worse than `score`."""
        kept = still_possible(problem, limits, current)
        if kept is None:
            return None
        candidate = Candidate.of(problem, kept, limits)
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
        return float(value**self.substitution * steps)

    def _score(self, candidate: Candidate, limits: Limits) -> float:
        return self.score(candidate.cost, candidate.value, limits, candidate.once)
