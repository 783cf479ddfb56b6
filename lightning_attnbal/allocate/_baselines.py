"""Controls that every comparison needs: full, static last-k, evenly spaced, random."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from typing_extensions import override

from lightning_attnbal.allocate._allocator import Allocator, Choice
from lightning_attnbal.allocate._dual import Limit
from lightning_attnbal.allocate._feasible import cheapest_within, check_feasible
from lightning_attnbal.allocate._levels import (
    Levels,
    full_levels,
    train_only,
    trainable,
    with_level,
)
from lightning_attnbal.allocate._limits import Limits
from lightning_attnbal.allocate._progress import Progress
from lightning_attnbal.allocate._trellis import Trellis
from lightning_attnbal.core import Plan, Problem, check_integer


@dataclass(frozen=True, slots=True)
class FullAllocator(Allocator):
    """Plain full training, for as many steps as the budget buys.

    Example:
        >>> from lightning_attnbal.core import FROZEN, FULL, Menu, Option
        >>> menu = (Option(level=FROZEN, cost=1, cost_above=1),
        ...         Option(level=FULL, cost=2, cost_above=1, value=3))
        >>> problem = Problem((Menu("low", menu), Menu("high", menu)))
        >>> plan = FullAllocator()(problem, Limits(remaining=30))
        >>> print(plan, plan.num_steps)
        full: low, high 6
    """

    @override
    def allocate(
        self, problem: Problem, limits: Limits, current: Plan | None, progress: Progress
    ) -> Choice:
        return Choice(levels=full_levels(problem), method="full")


@dataclass(frozen=True, slots=True)
class LastKAllocator(Allocator):
    """The static schedule: the last k units that can train do, the rest is frozen.

    Args:
        k: trained units, in [1, inf); more than there are means all.
        caches: whether what is below them is cached where menus allow it, rather than frozen.

    Raises:
        ValueError: `k` is out of range.

    Example:
        >>> from lightning_attnbal.core import FROZEN, FULL, Menu, Option
        >>> menu = (Option(level=FROZEN, cost=1, cost_above=1),
        ...         Option(level=FULL, cost=2, cost_above=1, value=3))
        >>> problem = Problem((Menu("low", menu), Menu("high", menu)))
        >>> print(LastKAllocator(1)(problem, Limits(remaining=30)))
        frozen: low · full: high
    """

    k: int
    caches: bool = False

    def __post_init__(self) -> None:
        check_integer("k", self.k, low=1)

    @override
    def allocate(
        self, problem: Problem, limits: Limits, current: Plan | None, progress: Progress
    ) -> Choice:
        units = trainable(problem)[-self.k :]
        levels = train_only(problem, units, caches=self.caches)
        return Choice(levels=levels, method=f"last {self.k}{', cached' if self.caches else ''}")


@dataclass(frozen=True, slots=True)
class UniformAllocator(Allocator):
    """Evenly spaced trained units counted from the top, the rest frozen.

    As many units as keep the cost per step within remaining / max_steps (within what remains,
    without `max_steps`) and the memory within its limit; where not even one does, the cheapest of
    these plans, for fewer steps.

    Example:
        >>> from lightning_attnbal.core import FROZEN, FULL, Menu, Option
        >>> menu = (Option(level=FROZEN, cost=1), Option(level=FULL, cost=2, cost_above=1, value=3))
        >>> problem = Problem(tuple(Menu(f"layer.{i}", menu) for i in range(4)))
        >>> print(UniformAllocator()(problem, Limits(remaining=70, max_steps=10)))
        frozen: layer.0 · full: layer.1 · frozen: layer.2 · full: layer.3
    """

    @override
    def allocate(
        self, problem: Problem, limits: Limits, current: Plan | None, progress: Progress
    ) -> Choice:
        units = trainable(problem)
        plans = [train_only(problem, spaced(units, n)) for n in range(len(units), 0, -1)]
        if not plans:
            plans = [train_only(problem, units)]
        fitting = [plan for plan in plans if _fits(problem, plan, limits, limits.cap_per_step)]
        levels = fitting[0] if fitting else min(plans, key=lambda plan: problem.evaluate(plan)[0])
        return Choice(levels=levels, method="uniform")


@dataclass(frozen=True, slots=True)
class RandomAllocator(Allocator):
    """A random valid plan within remaining / max_steps and the memory limit.

    Without `max_steps`, within what remains.

    Starts from the cheapest plan and visits the units in random order; each gets a random level of
    its menu if the plan stays valid and within the limits. The draw depends on the seed, the units
    and the limits only, so it repeats on resume.

    Args:
        seed: in [0, inf).

    Raises:
        ValueError: `seed` is out of range.

    Example:
        >>> from lightning_attnbal.core import FROZEN, FULL, Menu, Option, Problem
        >>> menu = (Option(level=FROZEN, cost=1, cost_above=1),
        ...         Option(level=FULL, cost=2, cost_above=1, value=3))
        >>> problem = Problem((Menu("low", menu), Menu("high", menu)))
        >>> RandomAllocator(seed=1)(problem, Limits(remaining=30)).cost_per_step
        5.0
    """

    seed: int = 0

    def __post_init__(self) -> None:
        check_integer("seed", self.seed, low=0)

    @override
    def allocate(
        self, problem: Problem, limits: Limits, current: Plan | None, progress: Progress
    ) -> Choice:
        figures = [limits.remaining, limits.max_steps or 0, limits.memory or 0]
        words = np.array(figures, dtype=np.float64).view(np.uint32).tolist()
        rng = np.random.default_rng([self.seed, len(problem.menus), *words])
        trellis, limit = Trellis.build([problem]), Limit(np.inf, limits.memory)
        check_feasible(trellis, limit)
        (levels,) = trellis.levels(cheapest_within(trellis, limit))
        for unit in rng.permutation(len(problem.menus)).tolist():
            options = problem.menus[unit].options
            level = options[int(rng.integers(len(options)))].level
            drawn = with_level(problem, levels, unit, level)
            if drawn is not None and _fits(problem, drawn, limits, limits.cap_per_step):
                levels = drawn
        return Choice(levels=levels, method=f"random, seed {self.seed}")


def spaced(units: list[int], count: int) -> list[int]:
    """`count` evenly spaced entries of `units`, the last one always among them.

    Example:
        >>> spaced([0, 1, 2, 3, 4, 5], 3)
        [1, 3, 5]
    """
    ends = np.arange(1, count + 1) * len(units) // count - 1
    return [units[int(end)] for end in ends]


def _fits(problem: Problem, levels: Levels, limits: Limits, cap: float) -> bool:
    cost, _, memory = problem.evaluate(levels)
    return cost <= cap and (limits.memory is None or memory <= limits.memory)
