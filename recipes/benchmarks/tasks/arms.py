"""The ways to share a budget: ours, rules, models apart, and gradients combined."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Literal

import lightning.pytorch as pl
from torch import Tensor
from torch.nn.functional import cross_entropy
from typing_extensions import override

from lightning_attnbal import AttentionBalancer
from lightning_attnbal.callbacks import TaskScheduler, TaskSettings
from lightning_attnbal.multitask import (
    BanditShares,
    GradNormShares,
    Proportional,
    RoundRobin,
    ShareRule,
    Temperature,
    Uncertainty,
    Uniform,
    make_aggregator,
)
from lightning_attnbal.trainer import JacobianBackward
from recipes.benchmarks.compare.counted import CountedBudget
from recipes.benchmarks.tasks.suites import Suite
from recipes.text import TextTasks

EPOCH = 64  # batches after which ours decides anew
RULE_EPOCH = 16  # batches after which rules do


@dataclass(frozen=True, kw_only=True)
class Arm(ABC):
    """A way to spend a budget on several tasks.

    Args:
        tuned_as: the arm whose tries its learning rate is taken from; "" for its own.
        is_apart: whether each task gets a model of its own, and its part of the budget.
        revision: counted up when what it does changes, so that finished runs are run again.
    """

    tuned_as: str = ""
    is_apart: bool = False
    revision: int = 1

    module: type[TextTasks] = TextTasks
    mode: Literal["one", "all"] = "one"

    @abstractmethod
    def callbacks(self, flops: float, seed: int, suite: Suite) -> list[pl.Callback]:
        """What to add to the Trainer for a run of so many FLOPs."""

    def report(self, callbacks: list[pl.Callback]) -> dict[str, Any]:
        """What the run cost and did."""
        (budget,) = (c for c in callbacks if isinstance(c, CountedBudget))
        shares = [c.shares for c in callbacks if isinstance(c, TaskScheduler)]
        return {"flops": budget.spent, "shares": shares[0] if shares else {}}


@dataclass(frozen=True, kw_only=True)
class Balanced(Arm):
    """`AttentionBalancer` with tasks, in turns or, where they have the same texts, at once."""

    levels: tuple[str, ...] = ("cached", "frozen", "full")
    takes_turns: bool = False

    @override
    def callbacks(self, flops: float, seed: int, suite: Suite) -> list[pl.Callback]:
        budget = f"{flops} FLOP"
        options: dict[str, Any] = {"levels": self.levels, "seed": seed}
        is_joint = suite.is_shared and not self.takes_turns
        settings = TaskSettings(
            epoch_batches=EPOCH,
            same_samples=suite.is_shared,
            parallel="heads" if is_joint else "off",
        )
        return [AttentionBalancer(budget, tasks=settings, **options)]

    @override
    def report(self, callbacks: list[pl.Callback]) -> dict[str, Any]:
        (balancer,) = (c for c in callbacks if isinstance(c, AttentionBalancer))
        return {
            "flops": balancer.flops.amount,
            "shares": dict(balancer.shares),
            "decisions": [
                {"step": d.step, "task": d.plan.task, "plan": str(d.plan), "why": d.plan.method}
                for d in balancer.history
            ],
        }


class Named(pl.Callback):
    """Tells the counter which task's head a step runs."""

    def __init__(self, budget: CountedBudget) -> None:
        self._budget = budget

    def on_train_batch_start(self, _: Any, __: Any, batch: dict[str, Any], ___: int) -> None:
        """Before the counter looks."""
        self._budget.tag = tuple(batch)


@dataclass(frozen=True, kw_only=True)
class Ruled(Arm):
    """Everything trains, tasks take turns by a rule."""

    rule: ShareRule

    @override
    def callbacks(self, flops: float, seed: int, suite: Suite) -> list[pl.Callback]:
        budget = CountedBudget(flops, warmup=0.1)
        scheduler = TaskScheduler(self.rule, epoch_batches=RULE_EPOCH, seed=seed)
        return [scheduler, Named(budget), budget]


class _UpGrad(JacobianBackward, TextTasks):
    """All tasks in each step, their gradients combined by UPGrad."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.aggregator = make_aggregator("upgrad", list(self.heads))

    def training_step(self, batch: dict[str, Any]) -> Tensor:
        """Hand the losses over, one by one."""
        texts = self.encode(batch)
        losses = {t: cross_entropy(self.heads[t](x), batch[t]["labels"]) for t, x in texts.items()}
        return self.keep(losses, list({id(x): x for x in texts.values()}.values()))


@dataclass(frozen=True, kw_only=True)
class Joint(Arm):
    """All tasks in each step, on the same texts; the module says how their losses are combined."""

    mode: Literal["one", "all"] = "all"

    @override
    def callbacks(self, flops: float, seed: int, suite: Suite) -> list[pl.Callback]:
        return [CountedBudget(flops, warmup=0.1)]


ARMS: dict[str, Arm] = {
    "ours": Balanced(revision=4),
    "ours-turns": Balanced(takes_turns=True, revision=4),
    "no-cache": Balanced(
        levels=("frozen", "full"), takes_turns=True, tuned_as="ours-turns", revision=4
    ),
    "proportional": Ruled(rule=Proportional()),
    "uniform": Ruled(rule=Uniform(), tuned_as="proportional"),
    "temperature": Ruled(rule=Temperature(tau=3.0), tuned_as="proportional"),
    "round-robin": Ruled(rule=RoundRobin(), tuned_as="proportional"),
    "uncertainty": Ruled(rule=Uncertainty(), tuned_as="proportional", revision=2),
    "gradnorm": Ruled(rule=GradNormShares(alpha=1.0), tuned_as="proportional", revision=2),
    "bandit": Ruled(rule=BanditShares(), tuned_as="proportional", revision=3),
    "apart": Ruled(rule=Proportional(), is_apart=True),
    "upgrad": Joint(module=_UpGrad),
    "joint": Joint(),
}
