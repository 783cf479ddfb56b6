"""What a user says about the tasks of a run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from lightning_attnbal.core import check_choice, check_integer, check_number
from lightning_attnbal.multitask import apportion

_DIRECTIONS = ("max", "min")
_ROUNDING = 1e-9


@dataclass(frozen=True, kw_only=True)
class TaskSettings:
    """Several tasks under one budget: each step serves one of them.

    The training data is a dict of one DataLoader per task (from a LightningDataModule, the module
    or `fit`); `training_step` gets `{task: batch}` with one task at a time.

    Args:
        weights: task → how much its gain counts, in (0, inf); 1 where a task is not named.
        floors: task → least share of the batches, in [0, 1); with 0 a task may be stopped, and get
            a share again at a later decision.
        caps: task → largest share, in (0, 1].
        reach: where neither is named, a share stays within [1 / reach, reach] times the task's
            share of the data, in [1, inf): a forecast from few steps is no reason to drop a task.
            Rounded to the grid such that the data's own shares (rounded, none to 0) stay possible.
            1 without floors and caps: the data's own shares exactly.
        objective: "sum" of the weighted gains, or the gain of the "worst" task.
        metrics: task → (logged validation metric, "max" or "min"): gains are counted in it once
            validations have shown what a loss is worth in it; without, in shares of the first loss.
            One that follows the loss: throughput depends on the plan and is the budget's side.
        epoch_batches: batches per epoch; None: one pass over the data of every task. After each
            epoch shares and plans are decided anew.
        same_samples: whether all tasks ask about the same samples, so that what one task's steps
            put into the cache serves the others.
        hysteresis: relative gain for which a task's plan is changed, in [0, inf).
        grid: shares are multiples of 1 / grid, in [number of tasks, 200] and at least 2.
        parallel: "off", a step serves one task. "heads": all tasks ask about the same samples, a
            step serves all of them with `{task: batch}` of common ones, so that the module runs its
            shared layers once; there are no shares, and one plan. "ranks": with DDP each rank has a
            task of its own in each step, whose gradients are averaged; shares are of all ranks'
            batches, `epoch_batches` is each rank's, and nothing is cached.

    Raises:
        ValueError: a number or name is out of range, or a setting has no use with `parallel`.

    Example:
        >>> settings = TaskSettings(weights={"rating": 2.0}, caps={"class": 0.9})
        >>> settings.bounds({"rating": 0.4, "class": 0.6})
        {'rating': (0.2, 0.8), 'class': (0.3, 0.9)}
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
    parallel: Literal["off", "heads", "ranks"] = "off"

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
        self._check_parallel()

    def _check_parallel(self) -> None:
        """Refuse ways to run tasks at once that there are not, and settings that have no use."""
        wanted: str = self.parallel
        if wanted == "streams":
            msg = (
                "Expected `parallel` to be one of 'off', 'heads', 'ranks', but got 'streams': "
                "tasks on streams of one device share its arithmetic units, and no gain was shown. "
                "Use 'heads' where tasks have the same samples, 'ranks' on several devices."
            )
            raise ValueError(msg)
        check_choice("parallel", self.parallel, ("off", "heads", "ranks"))
        if self.parallel == "heads":
            self._refuse_shares()

    def _refuse_shares(self) -> None:
        """A step that serves all tasks has no shares and one plan."""
        for name in ("weights", "floors", "caps", "metrics"):
            if getattr(self, name):
                msg = (
                    f"Expected `{name}` to be empty with `parallel='heads'`, where a step "
                    f"serves all tasks, but got {dict(getattr(self, name))}. Weigh the losses "
                    "in `training_step` instead."
                )
                raise ValueError(msg)
        if self.objective != "sum":
            msg = (
                "Expected `objective` to be 'sum' with `parallel='heads'`, where a step serves all "
                f"tasks under one plan, but got {self.objective!r}: leave it out."
            )
            raise ValueError(msg)

    @property
    def mode(self) -> Literal["one", "common", "ranks"]:
        """How a `TaskLoader` is to serve the tasks."""
        modes: dict[str, Literal["one", "common", "ranks"]]
        modes = {"off": "one", "heads": "common", "ranks": "ranks"}
        return modes[self.parallel]

    def weight(self, task: str) -> float:
        """How much the task's gain counts."""
        return self.weights.get(task, 1.0)

    def bounds(self, data: Mapping[str, float]) -> dict[str, tuple[float, float]]:
        """Least and largest share of each task, by its share of the data."""
        if self.reach == 1 and not (self.floors or self.caps):
            return {task: (share, share) for task, share in data.items()}
        near = apportion(data, self.grid, leaves_none_out=True)
        return {task: self._bounds(task, share, near[task]) for task, share in data.items()}

    def _bounds(self, task: str, data: float, near: int) -> tuple[float, float]:
        """Those of one task, whose share of the data is `near` steps of the grid."""
        least = min(near, math.ceil(data / self.reach * self.grid - _ROUNDING))
        most = max(near, math.floor(min(1.0, data * self.reach) * self.grid + _ROUNDING))
        cap = self.caps.get(task, most / self.grid)
        floor = self.floors.get(task, least / self.grid)
        return min(cap, floor), max(cap, self.floors.get(task, 0.0))

    def check_tasks(self, data: Mapping[str, float]) -> None:
        """Refuse names that the data does not have, and floors or caps that leave no shares.

        Args:
            data: task → its share of the data.

        Raises:
            ValueError: names the setting and the tasks there are.

        Example:
            >>> TaskSettings(caps={"a": 0.3, "b": 0.3}).check_tasks({"a": 0.5, "b": 0.5})
            Traceback (most recent call last):
            ValueError: Expected `caps` to sum to at least 1 over a, b, but got 0.6.
        """
        known = ", ".join(data)
        for name in ("weights", "floors", "caps", "metrics"):
            odd = sorted(set(getattr(self, name)) - set(data))
            if odd:
                msg = f"Expected `{name}` to name tasks of the data ({known}), but got {odd}."
                raise ValueError(msg)
        check_integer("grid", self.grid, low=len(data))
        low = sum(self.floors.get(task, 0.0) for task in data)
        high = sum(self.caps.get(task, 1.0) for task in data)
        if low > 1:
            msg = f"Expected `floors` to sum to at most 1 over {known}, but got {low:g}."
            raise ValueError(msg)
        if high < 1:
            msg = f"Expected `caps` to sum to at least 1 over {known}, but got {high:g}."
            raise ValueError(msg)
        self._check_room(data)

    def _check_room(self, data: Mapping[str, float]) -> None:
        """Refuse bounds between which no shares on the grid sum to 1."""
        lows, highs = zip(*self.bounds(data).values(), strict=True)
        least = sum(math.ceil(low * self.grid - _ROUNDING) for low in lows)
        most = sum(math.floor(high * self.grid + _ROUNDING) for high in highs)
        is_settled = lows == highs and abs(sum(lows) - 1) < _ROUNDING
        if not (is_settled or least <= self.grid <= most):
            msg = (
                f"Expected `floors`, `caps` and `reach` to leave shares in steps of 1/{self.grid} "
                f"that sum to 1, but got at least {least} and at most {most} such steps; try a "
                "larger `reach` or a finer `grid`."
            )
            raise ValueError(msg)
