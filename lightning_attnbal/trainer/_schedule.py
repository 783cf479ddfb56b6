"""Learning-rate shapes over the share of the budget that is spent."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

from lightning_attnbal.core import check_choice, check_number
from lightning_attnbal.trainer._progress import clip_progress


@dataclass(frozen=True, kw_only=True)
class Schedule(ABC):
    """Factor of the base learning rate as a function of budget spent.

    With progress p in [0, 1] and warm-up share w, the factor is p / w while p < w (linear from 0),
    and from there on the shape of the subclass, stretched over what is left of the budget: exactly
    1 at p = w. Progress is a share of the *budget*, not of the steps, so the shape ends when the
    budget does, however many steps it bought.

    Args:
        warmup: share of the budget spent on the linear warm-up, in [0, 1).

    Raises:
        ValueError: an argument is outside its range, or `progress` is NaN.

    Source:
        Li, Yumer, Ramanan, "Budgeted Training: Rethinking Deep Neural Network Training Under
        Resource Constraints", ICLR 2020: schedules that are defined by the budget and end with it.

    Example:
        >>> schedule = LinearSchedule(warmup=0.2)
        >>> [schedule(p) for p in (0.0, 0.1, 0.2, 0.6, 1.0)]
        [0.0, 0.5, 1.0, 0.5, 0.0]
    """

    warmup: float = 0.0

    def __post_init__(self) -> None:
        check_number("warmup", self.warmup, low=0, high=1, high_open=True)

    def __call__(self, progress: float) -> float:
        """The factor at `progress`, which is clipped to [0, 1]."""
        clipped = clip_progress(progress)
        if clipped < self.warmup:
            return clipped / self.warmup
        return self._after_warmup((clipped - self.warmup) / (1.0 - self.warmup))

    @abstractmethod
    def _after_warmup(self, t: float) -> float:
        """The factor at share `t` in [0, 1] of the budget behind the warm-up."""


@dataclass(frozen=True, kw_only=True)
class ConstantSchedule(Schedule):
    """Factor 1 once warm: the base learning rate until the budget is spent.

    Example:
        >>> ConstantSchedule()(0.3)
        1.0
    """

    def _after_warmup(self, t: float) -> float:  # noqa: ARG002 - flat
        return 1.0


@dataclass(frozen=True, kw_only=True)
class _Decay(Schedule):
    """A shape s(t) that falls from 1 to 0, lifted to end at the floor f: s(t) + f · (1 - s(t))."""

    floor: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("floor", self.floor, low=0, high=1)

    def _after_warmup(self, t: float) -> float:
        shape = self._shape(t)
        return shape + self.floor * (1.0 - shape)

    @abstractmethod
    def _shape(self, t: float) -> float:
        """s(t), exactly 1 at t = 0 and exactly 0 at t = 1."""


@dataclass(frozen=True, kw_only=True)
class LinearSchedule(_Decay):
    """Falls linearly: s(t) = 1 - t.

    Args:
        warmup: share of the budget spent on the linear warm-up, in [0, 1).
        floor: factor when the budget is spent, in [0, 1].

    Source:
        Li, Yumer, Ramanan, "Budgeted Training", ICLR 2020: their most robust schedule over budgets.

    Example:
        >>> [LinearSchedule(floor=0.2)(p) for p in (0.0, 0.5, 1.0)]
        [1.0, 0.6, 0.2]
    """

    def _shape(self, t: float) -> float:
        return 1.0 - t


@dataclass(frozen=True, kw_only=True)
class CosineSchedule(_Decay):
    """Falls along half a cosine: s(t) = (1 + cos(π t)) / 2.

    Args:
        warmup: share of the budget spent on the linear warm-up, in [0, 1).
        floor: factor when the budget is spent, in [0, 1].

    Source:
        Loshchilov, Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", ICLR 2017,
        eq. 5, without the restarts.

    Example:
        >>> [round(CosineSchedule()(p), 3) for p in (0.0, 0.25, 0.5, 1.0)]
        [1.0, 0.854, 0.5, 0.0]
    """

    def _shape(self, t: float) -> float:
        return 0.5 * (1.0 + math.cos(math.pi * t))


@dataclass(frozen=True, kw_only=True)
class REXSchedule(_Decay):
    """Stays high and falls late (reflected exponential): s(t) = (1 - t) / (1/2 + (1 - t)/2).

    Args:
        warmup: share of the budget spent on the linear warm-up, in [0, 1).
        floor: factor when the budget is spent, in [0, 1].

    Source:
        Chen, Wolfe, Kyrillidis, "REX: Revisiting Budgeted Training with an Improved Schedule",
        MLSys 2022; both fractions doubled here.

    Example:
        >>> [round(REXSchedule()(p), 3) for p in (0.0, 0.5, 0.8, 1.0)]
        [1.0, 0.667, 0.333, 0.0]
    """

    def _shape(self, t: float) -> float:
        return 2.0 * (1.0 - t) / (2.0 - t)


_SCHEDULES: dict[str, type[Schedule]] = {
    "linear": LinearSchedule,
    "cosine": CosineSchedule,
    "rex": REXSchedule,
    "constant": ConstantSchedule,
}


def make_schedule(spec: str | Schedule, warmup: float = 0.0) -> Schedule:
    """A schedule from its name, or the given one as it is.

    Args:
        spec: "linear", "cosine", "rex", "constant", or a schedule.
        warmup: share of the budget spent on the linear warm-up, in [0, 1); a schedule brings its
            own.

    Raises:
        ValueError: the name is not known, `warmup` is out of range, or given twice.

    Example:
        >>> make_schedule("rex", warmup=0.06)
        REXSchedule(warmup=0.06, floor=0.0)
    """
    if not isinstance(spec, Schedule):
        return _SCHEDULES[check_choice("lr_schedule", spec, _SCHEDULES)](warmup=warmup)
    if warmup != 0.0:
        msg = (
            f"Expected `warmup` to be set in the schedule itself, but got {warmup!r} beside {spec}."
        )
        raise ValueError(msg)
    return spec
