"""The full answer: who does what, and why."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from types import MappingProxyType
from typing import Any

from lightning_attnbal.core._checks import check_number
from lightning_attnbal.core._level import Level


@dataclass(frozen=True, slots=True)
class Change:
    """One unit whose level differs between two plans; None where the unit is new or gone.

    Example:
        >>> from lightning_attnbal.core import FROZEN, FULL
        >>> print(Change("layer.3", FROZEN, FULL, "0.042 per GFLOP against λ = 0.031"))
        layer.3: frozen → full: 0.042 per GFLOP against λ = 0.031
    """

    unit: str
    before: Level | None
    after: Level | None
    reason: str = ""

    def __str__(self) -> str:
        text = f"{self.unit}: {self.before or 'absent'} → {self.after or 'absent'}"
        return f"{text}: {self.reason}" if self.reason else text


@dataclass(frozen=True, slots=True)
class Alternative:
    """A plan that could have been chosen, as the one who chose saw it.

    Args:
        plan: in words, such as `frozen: stem … layer.3 · full: head`.
        cost: per optimizer step, in the dimension of the budget.
        value: contribution per step, in loss units.
        steps: what is left of the budget buys so many of it.
        loss: forecast at the run's end; NaN where nothing was forecast.
        error: standard deviation of the forecast.
        is_chosen: whether it was.

    Example:
        >>> Alternative("full: head", cost=2e9, value=0.1, steps=40.0).is_chosen
        False
    """

    plan: str
    cost: float
    value: float
    steps: float
    loss: float = math.nan
    error: float = math.nan
    is_chosen: bool = False


@dataclass(frozen=True)
class Plan(Mapping[str, Level]):
    """One level per unit, forward order, with its expected cost and the reasons for it.

    A plan is a mapping from unit name to `Level`.

    Args:
        levels: unit name → level, forward order.
        cost_per_step: predicted cost of one optimizer step, in the dimension of the budget.
        num_steps: optimizer steps the plan is meant for; None if it is open.
        value: contribution per step, in loss units.
        bound: proven upper bound of `value` at this cost; `bound - value` is the optimality gap.
        shadow_price: λ, the value one more unit of cost per step would buy.
        method: which allocator, and how the plan was chosen.
        reasons: unit name → why it got its level.
        task: name of the task.
        lr_factor: factor of the learning rate while the plan is in force, in (0, inf).
        is_final: whether the run ends after `num_steps`, and hands back what budget is left.
        forecast: mean and standard deviation of the loss at the run's end, where it was forecast.
        alternatives: what it was chosen from, cheapest first; neither compared nor saved.

    Raises:
        ValueError: no units, or `lr_factor` is out of range.

    Example:
        >>> plan = Plan({"stem": "frozen", "layer.0": "frozen", "layer.1": "full", "head": "full"})
        >>> print(plan)
        frozen: stem, layer.0 · full: layer.1, head
        >>> later = Plan({"stem": "frozen", "layer.0": "full", "layer.1": "full", "head": "full"})
        >>> [str(change) for change in later.diff(plan)]
        ['layer.0: frozen → full']
        >>> Plan.from_dict(plan.to_dict()) == plan
        True
    """

    levels: Mapping[str, Level]
    cost_per_step: float = 0.0
    num_steps: int | None = None
    value: float = 0.0
    bound: float = 0.0
    shadow_price: float = 0.0
    method: str = ""
    reasons: Mapping[str, str] = field(default_factory=dict)
    task: str = "main"
    lr_factor: float = 1.0
    is_final: bool = False
    forecast: tuple[float, float] | None = None
    alternatives: tuple[Alternative, ...] = field(
        default=(), compare=False, repr=False, metadata={"is_saved": False}
    )

    def __post_init__(self) -> None:
        check_number("lr_factor", self.lr_factor, low=0, low_open=True)
        if not self.levels:
            msg = "Expected `levels` to name at least one unit, but it is empty."
            raise ValueError(msg)
        levels = {str(name): Level.parse(level) for name, level in self.levels.items()}
        if self.forecast is not None:
            object.__setattr__(self, "forecast", tuple(self.forecast))
        object.__setattr__(self, "levels", MappingProxyType(levels))
        object.__setattr__(self, "reasons", MappingProxyType(dict(self.reasons)))

    def __getitem__(self, unit: str) -> Level:
        return self.levels[unit]

    def __iter__(self) -> Iterator[str]:
        return iter(self.levels)

    def __len__(self) -> int:
        return len(self.levels)

    def __hash__(self) -> int:
        return hash((self.task, tuple(self.levels.items())))

    @property
    def trained(self) -> tuple[str, ...]:
        """Names of the trained units, forward order."""
        return tuple(name for name, level in self.levels.items() if level.is_trained)

    def same_levels(self, other: Plan | None) -> bool:
        """Whether both plans ask the same of every unit."""
        return other is not None and dict(self.levels) == dict(other.levels)

    def diff(self, previous: Plan | None) -> tuple[Change, ...]:
        """What changed since `previous` (everything, if there was none), forward order."""
        before = {} if previous is None else dict(previous.levels)
        changed = [
            Change(name, before.get(name), level, self.reasons.get(name, ""))
            for name, level in self.levels.items()
            if before.get(name) != level
        ]
        gone = [
            Change(name, level, None) for name, level in before.items() if name not in self.levels
        ]
        return (*changed, *gone)

    def to_dict(self) -> dict[str, Any]:
        """Plain data that JSON can hold; `from_dict` restores an equal plan."""
        return {
            "levels": {name: str(level) for name, level in self.levels.items()},
            "cost_per_step": self.cost_per_step,
            "num_steps": self.num_steps,
            "value": self.value,
            "bound": self.bound,
            "shadow_price": self.shadow_price,
            "method": self.method,
            "reasons": dict(self.reasons),
            "task": self.task,
            "lr_factor": self.lr_factor,
            "is_final": self.is_final,
            "forecast": None if self.forecast is None else list(self.forecast),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Plan:
        """Restore a plan from `to_dict`.

        Raises:
            ValueError: a key or a level is not known.
        """
        unknown = sorted(set(data) - set(cls.__dataclass_fields__))
        if unknown or "levels" not in data:
            msg = (
                f"Expected the keys of a plan ({', '.join(cls.__dataclass_fields__)}), "
                f"but got {', '.join(data)}."
            )
            raise ValueError(msg)
        return cls(**data)

    def __str__(self) -> str:
        """Runs of equal levels, forward order: `frozen: stem … layer.3 · full: head`."""
        parts = []
        for level, run in groupby(self.levels.items(), key=lambda item: item[1]):
            names = [name for name, _ in run]
            parts.append(
                f"{level}: " + (", ".join(names) if len(names) < 3 else f"{names[0]} … {names[-1]}")
            )
        return " · ".join(parts)
