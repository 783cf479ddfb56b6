"""What a user says about the tasks of a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from lightning_attnbal.core import check_choice, check_integer, check_number

_DIRECTIONS = ("max", "min")


@dataclass(frozen=True, kw_only=True)
class TaskSettings:
    """Several tasks under one budget: each step serves one of them.

    The training data is a dict of one DataLoader per task (from a LightningDataModule, the module
    or `fit`); `training_step` gets `{task: batch}` with one task at a time.

    Args:
        weights: task → how much its gain counts, in (0, inf); 1 where a task is not named.
        floors: task → least share of the batches, in [0, 1).
        caps: task → largest share, in (0, 1].
        reach: where neither is named, a share stays within [1 / reach, reach] times the task's
            share of the data, in [1, inf): a forecast from few steps is no reason to drop a task.
        objective: "sum" of the weighted gains, or the gain of the "worst" task.
        metrics: task → (logged validation metric, "max" or "min"): gains are counted in it once
            validations have shown what a loss is worth in it; without, in shares of the first loss.
        epoch_batches: batches per epoch; None: one pass over the data of every task. After each
            epoch shares and plans are decided anew.
        same_samples: whether all tasks ask about the same samples, so that what one task's steps
            put into the cache serves the others.
        hysteresis: relative gain for which a task's plan is changed, in [0, inf).
        grid: shares are multiples of 1 / grid, in [2, 200].

    Raises:
        ValueError: a number or name is out of range.

    Example:
        >>> settings = TaskSettings(weights={"rating": 2.0}, caps={"class": 0.9})
        >>> settings.bounds("rating", 0.25), settings.bounds("class", 0.5)
        ((0.125, 0.5), (0.25, 0.9))
    """

    weights: Mapping[str, float] = field(default_factory=dict)
    floors: Mapping[str, float] = field(default_factory=dict)
    caps: Mapping[str, float] = field(default_factory=dict)
    reach: float = 2.0
    objective: Literal["sum", "worst"] = "sum"
    metrics: Mapping[str, tuple[str, Literal["max", "min"]]] = field(default_factory=dict)
    epoch_batches: int | None = None
    same_samples: bool = False
    hysteresis: float = 0.02
    grid: int = 20

    def __post_init__(self) -> None:
        for task, weight in self.weights.items():
            check_number(f"weights[{task!r}]", weight, low=0, low_open=True)
        for task, share in self.floors.items():
            check_number(f"floors[{task!r}]", share, low=0, high=1, high_open=True)
        for task, share in self.caps.items():
            check_number(f"caps[{task!r}]", share, low=0, high=1, low_open=True)
        check_number("reach", self.reach, low=1)
        check_choice("objective", self.objective, ("sum", "worst"))
        for task, (_, direction) in self.metrics.items():
            check_choice(f"metrics[{task!r}]", direction, _DIRECTIONS)
        if self.epoch_batches is not None:
            check_integer("epoch_batches", self.epoch_batches, low=1)
        check_number("hysteresis", self.hysteresis, low=0)
        check_integer("grid", self.grid, low=2, high=200)

    def weight(self, task: str) -> float:
        """How much the task's gain counts."""
        return self.weights.get(task, 1.0)

    def bounds(self, task: str, data: float) -> tuple[float, float]:
        """Least and largest share of a task that has a share `data` of the data."""
        cap = self.caps.get(task, min(1.0, self.reach * data))
        floor = self.floors.get(task, data / self.reach)
        return min(cap, floor), max(cap, self.floors.get(task, 0.0))

    def check_tasks(self, tasks: tuple[str, ...]) -> None:
        """Refuse names that the data does not have, and floors or caps that leave no shares.

        Raises:
            ValueError: names the setting and the tasks there are.

        Example:
            >>> TaskSettings(caps={"a": 0.3, "b": 0.3}).check_tasks(("a", "b"))
            Traceback (most recent call last):
            ValueError: Expected `caps` to sum to at least 1 over a, b, but got 0.6.
        """
        known = ", ".join(tasks)
        for name in ("weights", "floors", "caps", "metrics"):
            odd = sorted(set(getattr(self, name)) - set(tasks))
            if odd:
                msg = f"Expected `{name}` to name tasks of the data ({known}), but got {odd}."
                raise ValueError(msg)
        low = sum(self.floors.get(task, 0.0) for task in tasks)
        high = sum(self.caps.get(task, 1.0) for task in tasks)
        if low > 1:
            msg = f"Expected `floors` to sum to at most 1 over {known}, but got {low:g}."
            raise ValueError(msg)
        if high < 1:
            msg = f"Expected `caps` to sum to at least 1 over {known}, but got {high:g}."
            raise ValueError(msg)
