"""One abstract call: a problem and what is left in, a plan out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from lightning_attnbal.allocate._errors import InfeasibleMemoryError
from lightning_attnbal.allocate._explain import explain
from lightning_attnbal.allocate._levels import Levels
from lightning_attnbal.allocate._limits import Limits
from lightning_attnbal.allocate._progress import Progress
from lightning_attnbal.allocate._solve import solve_lagrangian
from lightning_attnbal.core import Alternative, Plan, Problem


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What an allocator decided.

    Args:
        levels: one per unit, forward order.
        method: which allocator, and how it chose.
        bound: proven upper bound of the value at this cost, None to have it computed.
        shadow_price: λ ≥ 0 at this cost, None to have it computed.
        num_steps: steps after which to decide again, None for as many as there are.
        is_final: whether the run is to end after those steps, with budget left; without effect
            where the budget is forecast not to pay for them.
        forecast: mean and standard deviation of the loss at the run's end, if there is one.
        alternatives: what it was chosen from, cheapest first, for those who want to see it.

    Example:
        >>> from lightning_attnbal.core import FROZEN, FULL
        >>> [str(level) for level in Choice(levels=(FROZEN, FULL), method="by hand").levels]
        ['frozen', 'full']
    """

    levels: Levels
    method: str
    bound: float | None = None
    shadow_price: float | None = None
    num_steps: int | None = None
    is_final: bool = False
    forecast: tuple[float, float] | None = None
    alternatives: tuple[Alternative, ...] = ()


class Allocator(ABC):
    """Chooses a plan. Subclasses override `allocate`; the call checks and prices what it returns.

    Allocators hold settings and no state: the same arguments give the same plan, so a resumed run
    repeats its plans.

    Example:
        >>> from lightning_attnbal.allocate import FullAllocator
        >>> from lightning_attnbal.core import FULL, Menu, Option
        >>> problem = Problem((Menu("only", (Option(level=FULL, cost=2, value=1),)),))
        >>> plan = FullAllocator()(problem, Limits(remaining=7))
        >>> print(plan, plan.num_steps, plan.reasons["only"])
        full: only 3 full: the only unit that trains
    """

    def __call__(
        self,
        problem: Problem,
        limits: Limits,
        current: Plan | None = None,
        progress: Progress | None = None,
    ) -> Plan:
        """Choose a plan for the rest of the run.

        Args:
            problem: the menus of one task.
            limits: what is left.
            current: the plan in force, if there is one.
            progress: the run so far; None for a run that begins.

        Returns:
            A valid plan with its true cost per step, the steps it gets (None if it is free and
            nothing else ends the run), its value, a proven bound, λ, and a reason per unit.

        Raises:
            ValueError: the allocator cannot form a valid plan from these menus.
            InfeasibleBudgetError: what remains does not buy one step of the plan.
            InfeasibleMemoryError: the plan needs more memory than the limit.
        """
        choice = self.allocate(problem, limits, current, progress or Progress())
        cost, value, memory = problem.evaluate(choice.levels)
        name = f"the plan of {type(self).__name__}"
        if limits.memory is not None and memory > limits.memory:
            raise InfeasibleMemoryError(memory=limits.memory, smallest=memory, plan=name)
        num_steps = limits.num_steps(cost, problem.one_off(choice.levels))
        if num_steps == 0:
            raise limits.infeasible(cost, name)
        is_final = choice.is_final
        if num_steps is not None and choice.num_steps is not None:
            is_final &= choice.num_steps <= num_steps  # else it is the budget that ends the run
            num_steps = min(num_steps, choice.num_steps)
        bound, price = choice.bound, choice.shadow_price
        if bound is None or price is None:
            relaxed = solve_lagrangian(problem, cost, memory=limits.memory)
            bound, price = relaxed.bound, relaxed.shadow_price
        return Plan(
            {menu.unit: lv for menu, lv in zip(problem.menus, choice.levels, strict=True)},
            cost_per_step=cost,
            num_steps=num_steps,
            value=value,
            bound=max(bound, value),
            shadow_price=price,
            method=choice.method,
            reasons=explain(problem, choice.levels, price, limits),
            task=problem.task,
            is_final=is_final,
            forecast=choice.forecast,
            alternatives=choice.alternatives,
        )

    @abstractmethod
    def allocate(
        self, problem: Problem, limits: Limits, current: Plan | None, progress: Progress
    ) -> Choice:
        """Decide on one level per unit; called by `__call__`, which validates the answer."""
