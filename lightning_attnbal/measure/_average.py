"""Average loads over batches that differ in shape."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from lightning_attnbal.core import UnitLoad
from lightning_attnbal.measure._step_time import load_from_dict, load_to_dict

_SUMMED = ("forward", "own_backward", "pass_backward", "full_backward", "optimizer", "side_input")


class LoadAverage:
    """Running mean of the units' FLOPs over the batches of a run; bytes are the largest seen.

    State (`state_dict`): the mean loads and how many batches they rest on; saved and restored.

    Example:
        >>> unit = Unit("head", 0, UnitKind.HEAD, ("head",), ("head.weight",), 4)
        >>> average = LoadAverage()
        >>> for flops in (2.0, 4.0):
        ...     average.add([UnitLoad(unit, PassCost(forward=flops))], fixed=0.0)
        >>> average.loads[0].flops.forward, average.num_batches
        (3.0, 2)
    """

    def __init__(self) -> None:
        self.loads: tuple[UnitLoad, ...] = ()
        self.fixed = 0.0
        self.num_batches = 0

    def add(self, loads: Sequence[UnitLoad], fixed: float) -> None:
        """Add one batch: its loads in forward order, and the FLOPs outside any unit.

        Raises:
            ValueError: the units are not those of the batches before.
        """
        self.num_batches += 1
        if self.num_batches == 1:
            self.loads, self.fixed = tuple(loads), fixed
            return
        if [load.unit.name for load in loads] != [load.unit.name for load in self.loads]:
            msg = "Expected `loads` to name the same units, in the same order, for every batch."
            raise ValueError(msg)
        self.fixed += (fixed - self.fixed) / self.num_batches
        self.loads = tuple(self._mix(a, b) for a, b in zip(self.loads, loads, strict=True))

    def _mix(self, mean: UnitLoad, new: UnitLoad) -> UnitLoad:
        step = {
            name: getattr(mean.flops, name)
            + (getattr(new.flops, name) - getattr(mean.flops, name)) / self.num_batches
            for name in _SUMMED
        }
        largest = {
            name: max(getattr(mean, name), getattr(new, name))
            for name in ("saved_bytes", "parameter_bytes", "optimizer_bytes")
        }
        return replace(mean, flops=replace(mean.flops, **step), **largest)

    def state_dict(self) -> dict[str, Any]:
        """Plain data for a checkpoint."""
        return {
            "loads": [load_to_dict(load) for load in self.loads],
            "fixed": self.fixed,
            "num_batches": self.num_batches,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self.loads = tuple(load_from_dict(data) for data in state["loads"])
        self.fixed = float(state["fixed"])
        self.num_batches = int(state["num_batches"])
