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
    """The head alone, on cached features, for some passes over the data; then everything.

    Args:
        passes: as many as the budget pays for, in (0, inf). A head's step costs next to nothing:
            a share of the budget instead would buy it thousands of passes.
        is_all: whether the run ends there, and hands the rest of the budget back.

    Source:
        Kumar et al., "Fine-Tuning can Distort Pretrained Features and Underperform
        Out-of-Distribution", ICLR 2022. They probe to convergence.
    """

    passes: float = 20.0
    is_all: bool = False

    @override
    def allocate(
        self, problem: Problem, limits: Limits, current: Plan | None, progress: Progress
    ) -> Choice:
        head = LastKAllocator(1, caches=True).allocate(problem, limits, current, progress)
        trained = trained_units(problem, head.levels)
        probed = sum(s.steps for s in progress.segments if trained == set(s.trained))
        assert limits.epoch_steps is not None
        left = math.ceil(self.passes * limits.epoch_steps - probed)
        if left >= 1 or self.is_all:
            return replace(head, num_steps=max(1, left), is_final=self.is_all)
        return FullAllocator().allocate(problem, limits, current, progress)
