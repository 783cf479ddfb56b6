"""What a training step costs, counted by torch, and what one of a new kind may cost at most."""

from __future__ import annotations

import math
import time
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from lightning_attnbal.measure import flop_counter

_MOST_BACKWARD = 2.5  # of the forward pass: 5 matrix products to 2 in fused attention, 2 elsewhere
Shapes = tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class CostKey:
    """What a step's FLOPs depend on.

    Args:
        shapes: of all tensors in the batch.
        trained: names of the parameters that require a gradient.
        tag: what else a method changed, such as the branches it cut.
    """

    shapes: Shapes
    trained: frozenset[str]
    tag: Hashable


class StepCosts:
    """FLOPs of the steps seen so far, and a bound for those not seen yet.

    Example:
        >>> costs = StepCosts()
        >>> costs.add(CostKey(((4, 8),), frozenset("w"), None), forward=10.0, total=30.0)
        >>> costs.bound(((4, 8),)), costs.bound(((4, 16),))
        (35.0, 140.0)
    """

    def __init__(self) -> None:
        self.known: dict[CostKey, float] = {}
        self._forward: dict[Shapes, float] = {}
        self._ratio = 1.0 + _MOST_BACKWARD

    def add(self, key: CostKey, *, forward: float, total: float) -> None:
        """Remember a counted step."""
        self.known[key] = total
        self.add_forward(key.shapes, forward)
        self._ratio = max(self._ratio, total / forward if forward else 0.0)

    def add_forward(self, shapes: Shapes, forward: float) -> None:
        """Remember a forward pass that was counted without its backward pass."""
        self._forward[shapes] = max(forward, self._forward.get(shapes, 0.0))

    def bound(self, shapes: Shapes) -> float:
        """The most that a step on such a batch can cost, whatever is trained; 0 before any count.

        The forward pass grows at most with the square of the batch's size (attention does).
        """
        if shapes in self._forward:
            return self._ratio * self._forward[shapes]
        size = _numel(shapes)
        grown = (
            forward * max(1.0, size / _numel(known)) ** 2
            for known, forward in self._forward.items()
        )
        return self._ratio * max(grown, default=0.0)


def batch_shapes(batch: Any) -> Shapes:
    """Shapes of all tensors in a batch of any form.

    Example:
        >>> batch_shapes({"x": torch.ones(2, 3), "y": [torch.ones(2)]})
        ((2, 3), (2,))
    """
    return tuple(tuple(leaf.shape) for leaf in tree_leaves(batch) if isinstance(leaf, Tensor))


def _numel(shapes: Shapes) -> int:
    return max(1, sum(math.prod(shape) for shape in shapes))


@contextmanager
def neutral_counter(model: nn.Module) -> Iterator[FlopCounterMode]:
    """Count FLOPs of real passes without changing a bit of their results.

    `flop_counter` turns off kernels that would hide recurrent layers from it; others round
    differently without them, so they stay on for models that have no recurrent layer.
    """
    switches = (torch.backends.mkldnn, torch.backends.cudnn)
    wanted = [(switch, switch.enabled) for switch in switches]
    with flop_counter() as counter:
        if not any(isinstance(module, nn.RNNBase) for module in model.modules()):
            for switch, enabled in wanted:
                switch.enabled = enabled
        yield counter


class BatchClock:
    """Processor time of training batches, without what counting them took.

    Batches that were counted are taken to cost as much per FLOP as the others.
    """

    def __init__(self) -> None:
        self._started, self._flops_before = time.process_time(), 0.0
        self._timed_seconds = self._timed_flops = 0.0
        self._seconds = self._flops = 0.0

    def start(self, flops: float) -> None:
        """A batch begins; `flops` were spent before it."""
        self._started, self._flops_before = time.process_time(), flops

    def stop(self, flops: float, *, was_counted: bool) -> None:
        """It ended; `flops` are spent now."""
        seconds, spent = time.process_time() - self._started, flops - self._flops_before
        self._seconds += seconds
        self._flops += spent
        if not was_counted:
            self._timed_seconds += seconds
            self._timed_flops += spent

    @property
    def seconds(self) -> float:
        """Seconds of all batches so far."""
        if not self._timed_flops:
            return self._seconds
        return self._timed_seconds * self._flops / self._timed_flops
