"""What each task brings to the joint allocation, and what comes out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from lightning_attnbal.core import Level, Problem, check_integer, check_number

Array: TypeAlias = NDArray[np.float64]
Indices: TypeAlias = NDArray[np.intp]
Levels: TypeAlias = tuple[Level, ...]
Gain: TypeAlias = Callable[[Levels, Array], Array]
"""(levels, (N,) steps > 0) to (N,) benefits in loss units."""


class PlanGain(ABC):
    """A gain that can be asked about many plans at once, which is faster; see `TaskTerms.gain`.

    Example:
        >>> class PerStep(PlanGain):
        ...     def table(self, plans, values, steps):
        ...         return np.outer(values, steps)
        ...     def __call__(self, levels, steps):
        ...         return 1.0 * steps
        >>> PerStep().table([(), ()], np.array([1.0, 2.0]), np.array([10.0]))
        array([[10.],
               [20.]])
    """

    @abstractmethod
    def __call__(self, levels: Levels, steps: Array) -> Array:
        """(N,) what so many steps (N,) at a plan are worth."""

    @abstractmethod
    def table(self, plans: Sequence[Levels], values: Array, steps: Array) -> Array:
        """(P, N) the same for P plans, of which `values` (P,) are the values per step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskTerms:
    """One task's menus, and what its progress is worth.

    Args:
        problem: its menus; its `share` stays 1, shares are what is decided here.
        weight: factor of its gain, in (0, inf).
        floor: least share of the steps, in [0, cap].
        cap: largest share of the steps, in [floor, 1].
        gain: `gain(levels, steps)` is what so many steps (more than 0, not always whole) at a plan
            are worth, in loss units, concave in the steps or not; no steps are worth 0. None:
            steps · the plan's value. Divide by the task's loss for relative progress, or take the
            expected change of a metric, with the sign that makes more of it better.
        epoch_steps: steps of one pass over this task's data, in [1, inf), over which the one-off
            cost of a plan is paid; None: all of it with the first step.

    Raises:
        TypeError: a number is not one.
        ValueError: a number is out of range, or the problem has a share.

    Example:
        >>> from lightning_attnbal.core import FULL, Menu, Option
        >>> head = Menu("head", (Option(level=FULL, cost=2, value=1),))
        >>> TaskTerms(problem=Problem((head,), task="rating"), floor=0.1).name
        'rating'
    """

    problem: Problem
    weight: float = 1.0
    floor: float = 0.0
    cap: float = 1.0
    gain: Gain | None = None
    epoch_steps: int | None = None

    def __post_init__(self) -> None:
        check_number("weight", self.weight, low=0, low_open=True)
        check_number("cap", self.cap, low=0, high=1)
        check_number("floor", self.floor, low=0, high=self.cap)
        if self.epoch_steps is not None:
            check_integer("epoch_steps", self.epoch_steps, low=1)
        if self.problem.share != 1:
            msg = (
                f"Expected `share` of the problem of task {self.name!r} to be 1, "
                f"but got {self.problem.share}."
            )
            raise ValueError(msg)

    @property
    def name(self) -> str:
        """Name of the task."""
        return self.problem.task

    def once(self, steps: float, amount: float) -> float:
        """How much of a one-off `amount` so many steps pay: min(1, steps / epoch_steps) of it."""
        return min(1.0, steps / (self.epoch_steps or 1)) * amount


@dataclass(frozen=True, kw_only=True)
class TaskSolution:
    """Who gets how many of the next steps, and what trains while they run.

    Args:
        shares: share of the steps of every task, multiples of 1 / grid that sum to 1.
        plans: levels in forward order of every task; of one without a share, to go on with when it
            gets one again, the dearest plan that has the others' units cached (if it has one).
        num_steps: whole steps of every task, by largest remainder; all 0 where what remains buys
            no whole step in these shares.
        steps: Σ of the steps before rounding.
        cost: what `num_steps` cost with all one-off costs, never more than what remains.
        value: the objective at the number of steps for which shares and plans were chosen; what
            is left after that buys further steps in the same shares, which are not counted.
        bound: no choice of shares, tabled plans, cached prefix and number of steps is worth more.
        shadow_price: λ ≥ 0, what one more unit of budget would add to `value`; for the worst
            task the slope to the next value that it could reach.

    Example:
        >>> solution = TaskSolution(shares={"a": 1.0}, plans={}, num_steps={"a": 3}, steps=3.5,
        ...                         cost=6.0, value=1.9, bound=2.0, shadow_price=0.5)
        >>> round(solution.gap, 3), round(solution.relative_gap, 3)
        (0.1, 0.05)
    """

    shares: Mapping[str, float]
    plans: Mapping[str, Levels]
    num_steps: Mapping[str, int]
    steps: float
    cost: float
    value: float
    bound: float
    shadow_price: float

    @property
    def gap(self) -> float:
        """`bound - value` ≥ 0; 0 means that nothing tabled is better."""
        return self.bound - self.value

    @property
    def relative_gap(self) -> float:
        """Gap over the magnitude of the bound, in [0, inf); 0 if there is no gap."""
        return self.gap / abs(self.bound) if self.gap and self.bound else self.gap
