"""Seconds of a whole step under any plan: unit timings, calibrated on a few real steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from scipy.optimize import nnls

from lightning_attnbal.core import Dimension, PassCost, Unit, UnitKind, UnitLoad, check_number
from lightning_attnbal.measure._plan_cost import Levels, plan_parts

_PRIOR = (1.0, 1.0, 1.0, 0.0)


@dataclass(frozen=True, slots=True)
class StepTimeModel:
    """Predicts the seconds of one optimizer step under a plan.

    t(p) = a_f · F(p) + a_b · B(p) + a_o · O(p) + c, with F, B, O the seconds of forward, backward
    and optimizer that `plan_cost` sums over the units, from timing each unit by itself. The
    coefficients, in [0, inf), start at (1, 1, 1, 0): the sum of the parts. A few real steps correct
    them for what the parts cannot see: loader, launches, caches, overlap.

    Args:
        loads: units with measured seconds, forward order.
        coefficients: (a_f, a_b, a_o), no unit.
        constant: c, seconds.
        batches_per_step: batches accumulated per optimizer step.

    Raises:
        ValueError: a coefficient is negative.

    Example:
        >>> from lightning_attnbal.core import FROZEN, FULL
        >>> cost = PassCost(1.0, 1.0, 1.0, 2.0, optimizer=0.5)
        >>> unit = lambda i: Unit(f"layer.{i}", i, UnitKind.BLOCK, (), (), 0)
        >>> below = [(), (0,)]
        >>> loads = [UnitLoad(unit(i), cost, cost, predecessors=below[i]) for i in range(2)]
        >>> model = StepTimeModel(tuple(loads))
        >>> model.predict([FROZEN, FULL])
        3.5
        >>> slower = model.fit([([FROZEN, FULL], 7.0), ([FULL, FULL], 12.0)])
        >>> round(slower.predict([FROZEN, FULL]), 1)
        7.0
    """

    loads: tuple[UnitLoad, ...]
    coefficients: tuple[float, float, float] = (1.0, 1.0, 1.0)
    constant: float = 0.0
    batches_per_step: int = 1

    def __post_init__(self) -> None:
        for value in (*self.coefficients, self.constant):
            check_number("coefficients", value, low=0)

    def fit(
        self, observations: Sequence[tuple[Levels, float]], *, prior_weight: float = 0.1
    ) -> StepTimeModel:
        """A calibrated copy: non-negative least squares of the relative errors, with a prior.

        min_a Σ_i (t(p_i)/t_i − 1)² + w² [Σ_k (a_k/s − 1)² + (c/t̄)²], with s the median of t_i over
        the sum of the parts: the machine may be slower or faster than when the units were timed,
        but all parts alike, and there is no constant. The prior decides where the observations
        cannot, such as between F and c when every plan runs the same forward.

        Args:
            observations: (plan, measured seconds per step in (0, inf)); a handful is enough.
            prior_weight: w in (0, inf); 0.1 stands for steps that repeat within about 3 % and parts
                that add up within about 30 %.

        Raises:
            ValueError: no observations, or a time is not positive.
        """
        weight = check_number("prior_weight", prior_weight, low=0, low_open=True)
        if not observations:
            msg = "Expected `observations` to hold at least one measured step, but it is empty."
            raise ValueError(msg)
        times = np.array(
            [check_number("seconds", t, low=0, low_open=True) for _, t in observations]
        )
        parts = np.array([self._parts(levels) for levels, _ in observations])
        speed = float(np.median(times / parts.sum(axis=1)))
        scale = np.array([speed, speed, speed, times.mean()])
        features = np.column_stack([parts, np.ones(len(times))]) * scale
        rows = np.vstack([features / times[:, None], weight * np.eye(4)])
        targets = np.concatenate([np.ones(len(times)), weight * np.array(_PRIOR)])
        found = nnls(rows, targets)[0] * scale
        forward, backward, optimizer, constant = map(float, found)
        return replace(self, coefficients=(forward, backward, optimizer), constant=constant)

    def predict(self, levels: Levels) -> float:
        """Seconds of one optimizer step under the plan, in [0, inf).

        Raises:
            ValueError: `levels` does not fit the loads.
        """
        parts = self._parts(levels)
        return self.constant + sum(a * s for a, s in zip(self.coefficients, parts, strict=True))

    def _parts(self, levels: Levels) -> tuple[float, float, float]:
        times = self.batches_per_step
        return plan_parts(self.loads, levels, dimension=Dimension.SECOND, batches_per_step=times)

    def scaled_loads(self) -> tuple[UnitLoad, ...]:
        """Loads with calibrated seconds: `plan_cost` of them plus `constant` is `predict`."""
        forward, backward, optimizer = self.coefficients
        factors = {"forward": forward, "optimizer": optimizer}

        def scaled(cost: PassCost) -> PassCost:
            amounts = asdict(cost)
            source = amounts.pop("side_source")
            amounts = {name: x * factors.get(name, backward) for name, x in amounts.items()}
            return PassCost(**amounts, side_source=source)

        return tuple(replace(x, seconds=x.seconds and scaled(x.seconds)) for x in self.loads)

    def to_dict(self) -> dict[str, Any]:
        """Plain data that JSON can hold; `from_dict` restores an equal model."""
        return {**asdict(self), "loads": [load_to_dict(load) for load in self.loads]}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> StepTimeModel:
        """Restore a model from `to_dict`.

        Raises:
            ValueError: a key is missing or not known.
        """
        if set(data) != set(cls.__dataclass_fields__):
            names = ", ".join(cls.__dataclass_fields__)
            msg = f"Expected the keys of a step-time model ({names}), but got {', '.join(data)}."
            raise ValueError(msg)
        forward, backward, optimizer = data["coefficients"]
        loads = tuple(load_from_dict(load) for load in data["loads"])
        coefficients = (forward, backward, optimizer)
        return cls(loads, coefficients, data["constant"], data["batches_per_step"])


def load_to_dict(load: UnitLoad) -> dict[str, Any]:
    """Plain data only, so that a checkpoint that holds it loads with `weights_only=True`.

    Example:
        >>> load = UnitLoad(Unit("head", 0, UnitKind.HEAD, ("fc",), ("fc.weight",), 4), PassCost())
        >>> type(load_to_dict(load)["unit"]["kind"])
        <class 'str'>
    """
    data = asdict(load)
    data["unit"]["kind"] = load.unit.kind.value
    return data


def load_from_dict(data: Mapping[str, Any]) -> UnitLoad:
    """Restore a load from `load_to_dict`.

    Example:
        >>> unit = Unit("head", 0, UnitKind.HEAD, ("fc",), ("fc.weight",), 4)
        >>> load = UnitLoad(unit, PassCost(2.0))
        >>> load_from_dict(load_to_dict(load)) == load
        True
    """
    unit = dict(data["unit"])
    unit |= {
        "kind": UnitKind(unit["kind"]),
        "modules": tuple(unit["modules"]),
        "parameters": tuple(unit["parameters"]),
    }
    rest = dict(data)
    rest |= {
        "unit": Unit(**unit),
        "flops": PassCost(**data["flops"]),
        "seconds": None if data["seconds"] is None else PassCost(**data["seconds"]),
        "predecessors": tuple(data["predecessors"]),
    }
    return UnitLoad(**rest)
