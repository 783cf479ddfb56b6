"""What batches cost, shape by shape."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import replace
from typing import Any

import torch
from lightning_utilities.core.apply_func import apply_to_collection

from lightning_attnbal.core import Dimension, Plan, UnitLoad
from lightning_attnbal.measure import average_loads, load_from_dict, load_to_dict, plan_cost

Loads = tuple[UnitLoad, ...]


class ShapeCosts:
    """Loads per shape of batch, how many batches had it, and what plans cost on it (FLOPs).

    Costs are remembered, so that asking at every step is cheap.
    """

    def __init__(self) -> None:
        self._shapes: dict[Hashable, tuple[Loads, float]] = {}
        self._num_batches: dict[Hashable, int] = {}
        self._costs: dict[Plan, dict[Hashable, float]] = {}

    def __contains__(self, shape: Hashable) -> bool:
        return shape in self._shapes

    def __len__(self) -> int:
        return len(self._shapes)

    @property
    def loads(self) -> Loads:
        """Mean loads over the batches seen; of the first shape before one is booked."""
        seen = [(self._shapes[shape][0], n) for shape, n in self._num_batches.items()]
        return average_loads(seen or [(loads, 1) for loads, _ in self._shapes.values()][:1])

    @property
    def fixed(self) -> float:
        """Mean FLOPs that no plan changes."""
        weights = self._num_batches or dict.fromkeys(list(self._shapes)[:1], 1)
        total = sum(self._shapes[shape][1] * n for shape, n in weights.items())
        return total / sum(weights.values())

    def add(self, shape: Hashable, loads: Sequence[UnitLoad], fixed: float) -> None:
        """A new shape was counted."""
        self._shapes[shape] = (tuple(loads), fixed)

    def of(self, shape: Hashable) -> tuple[Loads, float]:
        """Loads of a shape, and its FLOPs that no plan changes."""
        return self._shapes[shape]

    def scale_backward(self, shape: Hashable, factor: float) -> None:
        """The backward pass of this shape costs so many times what one takes."""
        loads, fixed = self._shapes[shape]
        scaled = tuple(
            replace(load, flops=load.flops.with_backward_times(factor)) for load in loads
        )
        self._shapes[shape] = (scaled, fixed)
        self._costs = {}

    def book(self, shape: Hashable) -> None:
        """One more batch had this shape."""
        self._num_batches[shape] = self._num_batches.get(shape, 0) + 1

    def cost(self, shape: Hashable, plan: Plan) -> float:
        """FLOPs of a batch of this shape under `plan`."""
        costs = self._costs.setdefault(plan, {})
        if shape not in costs:
            loads, fixed = self._shapes[shape]
            costs[shape] = plan_cost(loads, plan, dimension=Dimension.FLOP, fixed=fixed)
        return costs[shape]

    def fixed_of(self, shape: Hashable) -> float:
        """FLOPs of a batch of this shape that no plan changes."""
        return self._shapes[shape][1]

    def forwards(self, shape: Hashable) -> dict[str, float]:
        """FLOPs of each unit's forward pass on a batch of this shape."""
        return {load.unit.name: load.flops.forward for load in self._shapes[shape][0]}

    def mean_forwards(self) -> dict[str, float]:
        """Mean FLOPs of each unit's forward pass, over the batches seen."""
        total = sum(self._num_batches.values())
        sums: dict[str, float] = {}
        for shape, count in self._num_batches.items():
            for name, flops in self.forwards(shape).items():
                sums[name] = sums.get(name, 0.0) + flops * count
        return {name: flops / total for name, flops in sums.items()}

    def mean_cost(self, plan: Plan) -> float:
        """Mean FLOPs of a batch under `plan`, over the batches seen."""
        total = sum(self.cost(shape, plan) * n for shape, n in self._num_batches.items())
        return total / sum(self._num_batches.values())

    def state_dict(self) -> list[tuple[Hashable, list[dict[str, Any]], float, int]]:
        """Plain data for a checkpoint."""
        return [
            (shape, [load_to_dict(x) for x in loads], fixed, self._num_batches.get(shape, 0))
            for shape, (loads, fixed) in self._shapes.items()
        ]

    def load_state_dict(self, state: Sequence[tuple[Hashable, Any, float, int]]) -> None:
        """Restore what `state_dict` gave."""
        self._shapes = {s: (tuple(map(load_from_dict, x)), fixed) for s, x, fixed, _ in state}
        self._num_batches = {shape: n for shape, _, _, n in state if n}
        self._costs = {}


def batch_shape(batch: Any) -> Hashable:
    """Shapes and types of the tensors in a batch: what its cost depends on.

    Example:
        >>> batch_shape({"x": torch.zeros(2, 3), "y": [torch.zeros(2), "text"]})
        (((2, 3), 'torch.float32'), ((2,), 'torch.float32'))
    """
    found: list[tuple[tuple[int, ...], str]] = []

    def note(tensor: torch.Tensor) -> torch.Tensor:
        found.append((tuple(tensor.shape), str(tensor.dtype)))
        return tensor

    apply_to_collection(batch, torch.Tensor, note)
    return tuple(found)
