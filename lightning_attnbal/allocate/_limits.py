"""What the rest of the run may use."""

from __future__ import annotations

import math
from dataclasses import dataclass

from lightning_attnbal.core import InfeasibleBudgetError, check_integer, check_number


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What is left for the rest of the run.

    Args:
        remaining: budget left, in the unit of the menus' costs, in [0, inf).
        max_steps: cap on the optimizer steps still to come, in [1, inf), or None if the budget
            alone ends the run.
        epoch_steps: steps of one pass over the data, in [1, inf), over which a plan's one-off cost
            (filling a cache) is paid; None if there is no telling: it is paid at once.
        memory: peak bytes of a step, in [0, inf), or None for no limit.
        cost_unit: how to name the unit of cost in explanations.
        cost_scale: how much cost one such unit is, in (0, inf); 1e9 for FLOPs told in GFLOP.

    Raises:
        TypeError: a value is not a number.
        ValueError: a value is out of range.

    Example:
        >>> limits = Limits(remaining=10.0, max_steps=4)
        >>> limits.num_steps(2.0), limits.num_steps(3.0), limits.cap_per_step
        (4, 3, 2.5)
        >>> Limits(remaining=10.0, epoch_steps=2).num_steps(1.0, once=4.0)
        6
    """

    remaining: float
    max_steps: int | None = None
    epoch_steps: int | None = None
    memory: float | None = None
    cost_unit: str = "cost"
    cost_scale: float = 1.0

    def __post_init__(self) -> None:
        check_number("remaining", self.remaining, low=0)
        check_number("cost_scale", self.cost_scale, low=0, low_open=True)
        if self.max_steps is not None:
            check_integer("max_steps", self.max_steps, low=1)
        if self.epoch_steps is not None:
            check_integer("epoch_steps", self.epoch_steps, low=1)
        if self.memory is not None:
            check_number("memory", self.memory, low=0)

    @property
    def cap_per_step(self) -> float:
        """Cost per step at which `max_steps` just use up the budget; all of it without."""
        return self.remaining / (self.max_steps or 1)

    def total(self, num_steps: float, cost: float, once: float = 0.0) -> float:
        """Cost of so many steps: n · cost + min(1, n / epoch_steps) · once."""
        return num_steps * cost + min(1.0, num_steps / (self.epoch_steps or 1)) * once

    def steps(self, cost: float, once: float = 0.0) -> float:
        """Steps for a plan of this cost, not rounded: as many as `total` ≤ remaining, ≤ max_steps.

        Without a one-off cost min(max_steps, remaining / cost).
        """
        epoch = self.epoch_steps or 1
        first = cost + once / epoch
        affordable = self.remaining / first if first > 0 else math.inf
        if once and affordable > epoch:
            affordable = (self.remaining - once) / cost if cost > 0 else math.inf
        return affordable if self.max_steps is None else min(float(self.max_steps), affordable)

    def num_steps(self, cost: float, once: float = 0.0) -> int | None:
        """Whole steps for a plan of this cost; None if it is free and nothing ends the run."""
        steps = self.steps(cost, once)
        return None if math.isinf(steps) else math.floor(steps)

    def infeasible(self, cost: float, plan: str | None = None) -> InfeasibleBudgetError:
        """What to raise where not one step of this cost fits, in the unit that people read.

        Example:
            >>> print(Limits(remaining=5e9, cost_unit="GFLOP", cost_scale=1e9).infeasible(7e9, "x"))
            Expected `budget` to be at least 7 GFLOP (x), but got 5 GFLOP.
        """
        names = {} if plan is None else {"plan": plan}
        left, least = self.remaining / self.cost_scale, cost / self.cost_scale
        return InfeasibleBudgetError(left, least, self.cost_unit, **names)
