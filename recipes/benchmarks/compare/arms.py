"""The arms of the comparison: what people would do with the same budget."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from typing import Any

import lightning.pytorch as pl
import torch
from typing_extensions import override

from lightning_attnbal import AttentionBalancer
from lightning_attnbal.allocate import (
    Allocator,
    ForecastAllocator,
    FrontierAllocator,
    FullAllocator,
    LastKAllocator,
    RandomAllocator,
)
from lightning_attnbal.core import Budget, Dimension, Quantity
from lightning_attnbal.tracking import RunEnded
from recipes.benchmarks.compare.allocators import Every, Once, ProbeFirst
from recipes.benchmarks.compare.counted import CountedBudget
from recipes.benchmarks.compare.methods import (
    LISA,
    LPFT,
    AutoFreeze,
    BAdam,
    DropBP,
    FreezeOut,
    GreenTrainer,
    Lora,
    Method,
    ScheduledThaw,
)
from recipes.benchmarks.compare.same_batch import SameBatch

_STATIC = {"calibration_steps": 1, "probes": 0.0, "lr_scaling": None}
_WARMUP = 0.1  # of the budget, as ours has by default


@dataclass(frozen=True, kw_only=True)
class Arm(ABC):
    """A way to spend a budget.

    Args:
        lr_factor: middle of its grid of learning rates, relative to full training's, in (0, inf).
        revision: counted up when what it does changes otherwise than by its settings, so that
            finished runs are run again.
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

    def attach(self, module: pl.LightningModule, flops: float) -> _Balanced:  # noqa: ARG002
        """A callback, the module unchanged."""
        budget = Budget(Quantity(flops, Dimension.FLOP))
        return _Balanced(AttentionBalancer(budget, allocator=self.allocator, **self.options))


class _Balanced(Attached):
    def __init__(self, balancer: AttentionBalancer) -> None:
        self.balancer = balancer
        self.callbacks = [balancer]

    def report(self) -> dict[str, Any]:
        decisions = [
            {
                "step": d.step,
                "spent": d.spent,
                "why": d.why,
                "plan": str(d.plan),
                "method": d.plan.method,
            }
            for d in self.balancer.history
        ]
        (end,) = (e for e in self.balancer.events if isinstance(e, RunEnded))
        left = max(0.0, 1 - end.spent / end.limit)
        spent = {"flops": self.balancer.flops.amount, "ended": end.why, "left": left}
        return {**spent, "decisions": decisions}


@dataclass(frozen=True, kw_only=True)
class Naive(Balanced):
    """Ours, with contributions that are not debiased."""

    @override
    def attach(self, module: pl.LightningModule, flops: float) -> _Balanced:
        """The meter is another one from the first step on."""
        attached = super().attach(module, flops)
        attached.callbacks = [attached.balancer, SameBatch(attached.balancer)]
        return attached


@dataclass(frozen=True, kw_only=True)
class Peer(Arm):
    """A published method under `CountedBudget`, which charges by the same counter.

    Args:
        method: with its settings.
    """

    method: Method

    def attach(self, module: pl.LightningModule, flops: float) -> Attached:
        """Its own changes to the model, and its callbacks."""
        self.method.prepare(module)
        return _Peer(self.method, CountedBudget(flops, warmup=_WARMUP))


class _Peer(Attached):
    def __init__(self, method: Method, budget: CountedBudget) -> None:
        self.budget = budget
        self.callbacks = method.callbacks(budget)

    def report(self) -> dict[str, Any]:
        spent = {"flops": self.budget.spent, "charged": self.budget.charged}
        return {**spent, "cpu_seconds": self.budget.cpu_seconds}


@dataclass(frozen=True, kw_only=True)
class Drawn(Balanced):
    """One random plan that the budget pays for to the end, another one with each seed of a run."""

    def attach(self, module: pl.LightningModule, flops: float) -> _Balanced:
        """The seed is that of the global random state."""
        allocator = Once(RandomAllocator(seed=torch.initial_seed()))
        return Balanced.attach(replace(self, allocator=allocator), module, flops)


def _static(allocator: Allocator, lr_factor: float = 1.0) -> Balanced:
    """One plan from the first step to the last, at the rate the module was given."""
    return Balanced(allocator=allocator, lr_factor=lr_factor, options=_STATIC)


def _peer(method: Method) -> Peer:
    return Peer(method=method, lr_factor=method.default_lr_factor)


ARMS: dict[str, Arm] = {
    "ours": Balanced(revision=4),
    "full": _static(FullAllocator()),
    "full-rex": Balanced(
        allocator=FullAllocator(), options={"lr_schedule": "rex", "calibration_steps": 1}
    ),
    **{
        f"last-{k}-cached": _static(LastKAllocator(k, caches=True), lr_factor=2.0)
        for k in (2, 3, 4, 5, 6, 8, 12)
    },
    **{f"last-{k}": _static(LastKAllocator(k), lr_factor=2.0) for k in (2, 3, 4, 5, 6, 8, 12)},
    "random": Drawn(lr_factor=2.0, options=_STATIC),
    "once": Balanced(allocator=Once(ForecastAllocator()), revision=2),
    "linear-probe": Balanced(
        allocator=ProbeFirst(is_all=True), lr_factor=4.0, options={"calibration_steps": 1}
    ),
    "lp-ft": _peer(LPFT()),
    "lp-ft-cached": Balanced(allocator=ProbeFirst(), options={"calibration_steps": 1}),
    "lora": _peer(Lora()),
    "rslora": _peer(Lora(kind="rslora")),
    "dora": _peer(Lora(kind="dora")),
    "adalora": _peer(Lora(kind="adalora")),
    "lisa": _peer(LISA()),
    "autofreeze": _peer(AutoFreeze()),
    "freezeout": _peer(FreezeOut()),
    "greentrainer": _peer(GreenTrainer()),
    "dropbp": _peer(DropBP()),
    "badam": _peer(BAdam()),
    "scheduled-thaw": _peer(ScheduledThaw()),
    "no-forecast": Balanced(allocator=FrontierAllocator()),
    "no-debiasing": Naive(),
    "every-50-steps": Balanced(allocator=Every(ForecastAllocator(), 50)),
    "no-fit": Balanced(allocator=ForecastAllocator(fits=False), revision=2),
    "no-cache": Balanced(options={"levels": ("frozen", "full")}, revision=2),
    "probes": Balanced(options={"probes": 0.02}, revision=2),
    "no-lr-scaling": Balanced(options={"lr_scaling": None}, revision=2),
    "with-detach": Balanced(
        options={"levels": ("cached", "frozen", "detached", "full")}, revision=2
    ),
}
