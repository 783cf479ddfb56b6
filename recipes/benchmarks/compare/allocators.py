"""Ways to choose plans that arms need and the product does not."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from typing_extensions import override

from lightning_attnbal.allocate import (
    Allocator,
    Choice,
    FullAllocator,
    LastKAllocator,
    Limits,
    Progress,
    trained_units,
)
from lightning_attnbal.core import Plan, Problem


@dataclass(frozen=True)
class Once(Allocator):
    """Decides once; afterwards the first plan stays for as long as it can.

    Args:
        allocator: that decides.
    """

    allocator: Allocator

    @override
    def allocate(
        self, problem: Problem, limits: Limits, current: Plan | None, progress: Progress
    ) -> Choice:
        if current is None:
            return self.allocator.allocate(problem, limits, None, progress)
        return Choice(levels=tuple(current.values()), method="as decided at first")


@dataclass(frozen=True)
class Every(Allocator):
    """Decides again after so many steps, whatever the epoch.

    Args:
        allocator: that decides.
        steps: in [1, inf).
    """

    allocator: Allocator
    steps: int

    @override
    def allocate(
        self, problem: Problem, limits: Limits, current: Plan | None, progress: Progress
    ) -> Choice:
        choice = self.allocator.allocate(problem, limits, current, progress)
        if choice.is_final:
            return choice
        return replace(choice, num_steps=min(choice.num_steps or self.steps, self.steps))


@dataclass(frozen=True)
class ProbeFirst(Allocator):
    """The head alone, on cached features, for a share of the budget; then everything.

    Args:
        share: of what there is when it decides first, in (0, 1).

    Source:
        Kumar et al., "Fine-Tuning can Distort Pretrained Features and Underperform
        Out-of-Distribution", ICLR 2022. They probe to convergence; here a share of the budget.
    """

    share: float = 0.2

    @override
    def allocate(
        self, problem: Problem, limits: Limits, current: Plan | None, progress: Progress
    ) -> Choice:
        head = LastKAllocator(1, caches=True).allocate(problem, limits, current, progress)
        trained = trained_units(problem, head.levels)
        cost, once = problem.evaluate(head.levels)[0], problem.one_off(head.levels)
        probed = sum(s.steps for s in progress.segments if trained == set(s.trained))
        whole = replace(limits, remaining=limits.remaining + limits.total(probed, cost, once))
        probe = replace(whole, remaining=self.share * whole.remaining)
        left = math.floor(probe.steps(cost, once) - probed)
        if left >= 1:
            return replace(head, num_steps=left)
        return FullAllocator().allocate(problem, limits, current, progress)
