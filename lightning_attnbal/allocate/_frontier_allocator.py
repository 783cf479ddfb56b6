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
from lightning_attnbal.allocate._solution import Solution
from lightning_attnbal.core import InfeasibleBudgetError, Plan, Problem, check_integer, check_number


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontierAllocator(Allocator):
    """Picks the point of the exact frontier with the largest V(p)^substitution · n(p).

    V(p) is the plan's contribution per step in loss units and n(p) = min(max_steps, remaining /
    c(p)) the steps it gets. Contributions of layers overlap, so their plain sum (substitution = 1)
    overrates deep plans; a smaller exponent trusts the sum less and the number of steps more.
    Plans of no value score 0; if no plan has any, the most valuable one is chosen. Where all steps
    at the chosen plan would leave budget unspent, the next dearer plan of the frontier goes first,
    for as many steps as the rest pays for.

    Args:
        substitution: exponent in (0, 1]: "only steps count" near 0, "layers add up" at 1.
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
    hysteresis: float = 0.1
    resolution: int = 1000

    def __post_init__(self) -> None:
        check_number("substitution", self.substitution, low=0, high=1, low_open=True)
        check_number("hysteresis", self.hysteresis, low=0)
        check_integer("resolution", self.resolution, low=1)

    @override
    def allocate(self, problem: Problem, limits: Limits, current: Plan | None) -> Choice:
        points = frontier(problem, memory=limits.memory, resolution=self.resolution)
        affordable = [point for point in points if point.cost <= limits.remaining]
        if not affordable:
            raise InfeasibleBudgetError(limits.remaining, points[0].cost, limits.cost_unit)
        best = max(affordable, key=lambda p: (self.score(p.cost, p.value, limits), p.value))
        kept = self._kept(problem, limits, current, self.score(best.cost, best.value, limits))
        cost = best.cost if kept is None else problem.evaluate(kept)[0]
        deeper, num_steps = _spend_the_rest(affordable, cost, limits)
        if deeper is not None:
            return self._choice(deeper, "dearer first, to use the budget up", num_steps)
        if kept is not None:
            return Choice(levels=kept, method="frontier: kept the current plan")
        return self._choice(best, f"V^{self.substitution:g} · steps")

    def _kept(
        self, problem: Problem, limits: Limits, current: Plan | None, score: float
    ) -> Levels | None:
        """The current levels, unless they are impossible now or clearly worse than `score`."""
        kept = _still_possible(problem, limits, current)
        if kept is None:
            return None
        cost, value, _ = problem.evaluate(kept)
        is_close = score <= (1 + self.hysteresis) * self.score(cost, value, limits)
        return kept if is_close else None

    def score(self, cost: float, value: float, limits: Limits) -> float:
        """max(V, 0)^substitution · min(max_steps, remaining / c).

        Example:
            >>> FrontierAllocator(substitution=0.5).score(2.0, 4.0, Limits(remaining=10))
            10.0
        """
        return max(value, 0.0) ** self.substitution * limits.steps(cost) if value > 0 else 0.0

    def _choice(self, point: Solution, why: str, num_steps: int | None = None) -> Choice:
        return Choice(
            levels=point.levels[0],
            method=f"frontier: {why}",
            bound=point.bound,
            shadow_price=point.shadow_price,
            num_steps=num_steps,
        )


def _spend_the_rest(
    points: Sequence[Solution], cost: float, limits: Limits
) -> tuple[Solution | None, int]:
    """A dearer point, and for how many steps, if all steps at `cost` leave budget unspent.

    Between neighbours on the frontier with costs c < c', n steps at c' and S - n at c just use up
    what remains: n = (remaining - S·c) / (c' - c), rounded down. The dearer ones come first, while
    the learning rate is high.
    """
    if limits.max_steps is None:
        return None, 0
    found: tuple[Solution | None, int] = (None, 0)
    for point in points:
        if point.cost <= cost:
            continue
        unspent = limits.remaining - limits.max_steps * cost
        num_steps = math.floor(unspent / (point.cost - cost))
        if num_steps <= 0:
            break
        found, cost = (point, min(num_steps, limits.max_steps)), point.cost
    return found


def _still_possible(problem: Problem, limits: Limits, current: Plan | None) -> Levels | None:
    """The current levels if menus, memory and budget still allow them."""
    if current is None or list(current) != [menu.unit for menu in problem.menus]:
        return None
    levels = tuple(current.values())
    on_menu = all(
        any(option.level == level for option in menu.options)
        for menu, level in zip(problem.menus, levels, strict=True)
    )
    if not on_menu or problem.why_invalid(levels) is not None:
        return None
    cost, _, memory = problem.evaluate(levels)
    fits = cost <= limits.remaining and (limits.memory is None or memory <= limits.memory)
    return levels if fits else None
