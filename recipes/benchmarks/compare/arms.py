"""The arms of the comparison: what people would do with the same budget."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any

import lightning.pytorch as pl

from lightning_attnbal import AttentionBalancer
from lightning_attnbal.allocate import (
    Allocator,
    FullAllocator,
    LastKAllocator,
    RandomAllocator,
)
from lightning_attnbal.core import Budget, Dimension, Quantity


@dataclass(frozen=True, kw_only=True)
class Arm(ABC):
    """A way to spend a budget.

    Args:
        lr_factor: middle of its grid of learning rates, relative to full training's, in (0, inf).
        revision: counted up when what it does changes, so that finished runs are run again.
    """

    lr_factor: float = 1.0
    revision: int = 1

    @abstractmethod
    def attach(self, module: pl.LightningModule, flops: float) -> Attached:
        """Prepare a fresh model for a run of so many FLOPs."""


class Attached(ABC):
    """An arm on a model."""

    callbacks: list[pl.Callback]

    @abstractmethod
    def report(self) -> dict[str, Any]:
        """What it spent, in FLOPs and steps, and what it decided."""


@dataclass(frozen=True, kw_only=True)
class Balanced(Arm):
    """A run under `AttentionBalancer`.

    Args:
        allocator: None for the default.
        options: for `AttentionBalancer`.
    """

    allocator: Allocator | None = None
    options: dict[str, Any] = field(default_factory=dict)

    def attach(self, module: pl.LightningModule, flops: float) -> Attached:  # noqa: ARG002
        """A callback, the module unchanged."""
        budget = Budget(Quantity(flops, Dimension.FLOP))
        return _Balanced(AttentionBalancer(budget, allocator=self.allocator, **self.options))


class _Balanced(Attached):
    def __init__(self, balancer: AttentionBalancer) -> None:
        self.balancer = balancer
        self.callbacks = [balancer]

    def report(self) -> dict[str, Any]:
        decisions = [
            {"step": d.step, "spent": d.spent, "why": d.why, "plan": str(d.plan)}
            for d in self.balancer.history
        ]
        return {"flops": self.balancer.flops.amount, "decisions": decisions}


def _static(allocator: Allocator, lr_factor: float = 1.0) -> Balanced:
    """One plan from the first step to the last, at the rate the module was given."""
    options = {"calibration_steps": 1}
    return Balanced(allocator=allocator, lr_factor=lr_factor, options=options)


ARMS: dict[str, Arm] = {
    "ours": Balanced(),
    "full": _static(FullAllocator()),
    **{
        f"last-{k}-cached": _static(LastKAllocator(k, caches=True), lr_factor=factor)
        for k, factor in ((1, 2.0), (2, 2.0), (3, 2.0), (4, 2.0), (5, 2.0))
    },
    **{f"last-{k}": _static(LastKAllocator(k), lr_factor=2.0) for k in (3, 4, 5)},
    "random": _static(RandomAllocator(seed=0), lr_factor=2.0),
}
