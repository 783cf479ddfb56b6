"""What a solver answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

from lightning_attnbal.allocate._dual import is_proven
from lightning_attnbal.allocate._trellis import Path, Trellis
from lightning_attnbal.core import Level, Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class Solution:
    """A valid plan for each task, what it costs, and how far from the best it can be.

    Args:
        tasks: names of the tasks.
        units: per task, the names of its units in forward order.
        levels: per task, the level of each unit.
        value: Σ over tasks of share · Σ_u value, in loss units.
        cost: Σ over tasks of the true cost per step (`Problem.evaluate`), never over the budget.
        memory: largest memory of a task in bytes; the tasks take turns, so their peaks do not add
            up.
        bound: proven upper bound of the value of any plan within the same limits.
        shadow_price: λ ≥ 0, the value that one more unit of cost would buy.
        method: which solver found it.

    Example:
        >>> from lightning_attnbal.allocate import solve
        >>> from lightning_attnbal.core import FROZEN, FULL, Menu, Option, Problem
        >>> menu = (Option(level=FROZEN, cost=1, cost_above=1),
        ...         Option(level=FULL, cost=2, cost_above=1, value=3))
        >>> solution = solve(Problem((Menu("low", menu), Menu("high", menu))), budget=4)
        >>> print(solution.plan, solution.cost, solution.value, solution.gap)
        frozen: low · full: high 3.0 3.0 0.0
    """

    tasks: tuple[str, ...]
    units: tuple[tuple[str, ...], ...]
    levels: tuple[tuple[Level, ...], ...]
    value: float
    cost: float
    memory: float
    bound: float
    shadow_price: float
    method: str

    @property
    def gap(self) -> float:
        """`bound - value` ≥ 0; 0 means that the plan is proven to be the best."""
        return self.bound - self.value

    @property
    def relative_gap(self) -> float:
        """Gap over the magnitude of the bound, in [0, inf); 0 if there is no gap."""
        return self.gap / abs(self.bound) if self.gap and self.bound else self.gap

    @property
    def plans(self) -> tuple[Plan, ...]:
        """One plan per task, with the figures of all tasks together."""
        return tuple(
            Plan(
                dict(zip(units, levels, strict=True)),
                cost_per_step=self.cost,
                value=self.value,
                bound=self.bound,
                shadow_price=self.shadow_price,
                method=self.method,
                task=task,
            )
            for task, units, levels in zip(self.tasks, self.units, self.levels, strict=True)
        )

    @property
    def plan(self) -> Plan:
        """The plan of the only task.

        Raises:
            ValueError: there are several tasks.
        """
        if len(self.tasks) != 1:
            msg = f"Expected a solution with one task, but got {len(self.tasks)}; use `plans`."
            raise ValueError(msg)
        return self.plans[0]


@dataclass(frozen=True, slots=True)
class Frontier(Sequence[Solution]):
    """Solutions that no other beats, from the cheapest plan to the most valuable one.

    The shadow price of a point is the slope of the concave envelope to its right: the most value
    per unit of cost that spending more can buy; 0 at the end.

    Example:
        >>> from lightning_attnbal.allocate import frontier
        >>> from lightning_attnbal.core import FROZEN, FULL, Menu, Option, Problem
        >>> menu = (Option(level=FROZEN, cost=1), Option(level=FULL, cost=2, cost_above=1, value=3))
        >>> for point in frontier(Problem((Menu("low", menu), Menu("high", menu)))):
        ...     print(point.cost, point.value, point.shadow_price)
        3.0 3.0 1.5
        5.0 6.0 0.0
    """

    points: tuple[Solution, ...]

    def __len__(self) -> int:
        return len(self.points)

    @overload
    def __getitem__(self, index: int) -> Solution: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Solution, ...]: ...
    def __getitem__(self, index: int | slice) -> Solution | tuple[Solution, ...]:
        return self.points[index]


def as_solution(
    trellis: Trellis,
    path: Path,
    figures: tuple[float, float, float],
    *,
    bound: float,
    shadow_price: float,
    method: str,
) -> Solution:
    """A path with its true figures; a bound within rounding of the value is set to it."""
    cost, value, memory = figures
    return Solution(
        tasks=tuple(p.task for p in trellis.problems),
        units=tuple(tuple(m.unit for m in p.menus) for p in trellis.problems),
        levels=trellis.levels(path),
        value=value,
        cost=cost,
        memory=memory,
        bound=value if is_proven(value, bound) else bound,
        shadow_price=shadow_price,
        method=method,
    )
