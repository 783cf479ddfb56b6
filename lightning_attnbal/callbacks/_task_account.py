"""What each task got of a run. Numbers only."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor


@dataclass(kw_only=True)
class TaskAccount:
    """Batches and cost per task, and what the full run would cost.

    Args:
        reference: share of the batches of each task in the full run.
        batches: task → batches booked.
        full_flops: task → FLOPs they would have cost with everything trained.
        spent: task → what they cost, in the budget's dimension.

    Example:
        >>> account = TaskAccount(reference={"a": 0.75, "b": 0.25})
        >>> account.serve("a", 4.0)
        >>> account.serve("b", 40.0)
        >>> account.full_flops_per_batch
        13.0
    """

    reference: dict[str, float] = field(default_factory=dict)
    batches: dict[str, int] = field(default_factory=dict)
    full_flops: dict[str, float] = field(default_factory=dict)
    spent: dict[str, float] = field(default_factory=dict)
    _latest: dict[str, Tensor] = field(default_factory=dict)

    def serve(self, task: str, full_flops: float) -> None:
        """A batch of `task`, and what it would have cost with everything trained."""
        self.batches[task] = self.batches.get(task, 0) + 1
        self.full_flops[task] = self.full_flops.get(task, 0.0) + full_flops

    def spend(self, task: str, cost: float, loss: Tensor | None) -> None:
        """What the batch cost, and its loss; the loss is read only when asked for."""
        self.spent[task] = self.spent.get(task, 0.0) + cost
        if loss is not None:
            mean = self._latest.get(task)
            now = loss.detach().float()
            self._latest[task] = now if mean is None else mean + 0.1 * (now - mean)

    @property
    def losses(self) -> dict[str, float]:
        """Mean loss of each task's latest batches (weights fall by a tenth per batch)."""
        return {task: float(loss) for task, loss in self._latest.items()}

    @property
    def full_flops_per_batch(self) -> float:
        """Mean over the full run's batches, of the tasks seen so far; NaN before the first."""
        means = {task: self.full_flops[task] / n for task, n in self.batches.items()}
        total = sum(self.reference[task] for task in means)
        if not total:
            return math.nan
        return sum(self.reference[task] * mean for task, mean in means.items()) / total

    def state_dict(self) -> dict[str, Any]:
        """Plain data for a checkpoint."""
        state = {k: v for k, v in asdict(self).items() if not k.startswith("_")}
        return {**state, "latest": self.losses}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        for name in ("reference", "batches", "full_flops", "spent"):
            setattr(self, name, dict(state[name]))
        self._latest = {task: torch.tensor(loss) for task, loss in state["latest"].items()}
