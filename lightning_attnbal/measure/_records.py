"""The written form of a forward pass: tensors without numbers, calls, and their order."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from lightning_attnbal.measure._provenance import Sources, unflatten

_MOST_KEPT = 10_000


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """All of a tensor but its numbers.

    Args:
        shape: its sizes.
        stride: its strides, in elements.
        dtype: its type.
        device: where it lives.
        sources: calls (by number) and bare parameters (by name) that it depends on.
        value: the numbers after all, for a short list of integers on the CPU (lengths).

    Example:
        >>> spec = TensorSpec.of(torch.ones(2, 3))
        >>> spec.shape, spec.can_require_grad, spec.empty().shape
        ((2, 3), True, torch.Size([2, 3]))
    """

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device
    sources: Sources = frozenset()
    value: Tensor | None = field(default=None, compare=False, repr=False)

    @classmethod
    def of(cls, tensor: Tensor, sources: Sources = frozenset()) -> TensorSpec:
        """The spec of `tensor`."""
        layout = (tuple(tensor.shape), tuple(tensor.stride()), tensor.dtype, tensor.device)
        is_list = tensor.dim() == 1 and tensor.device.type == "cpu"
        is_short = is_list and not tensor.is_floating_point() and len(tensor) <= _MOST_KEPT
        return cls(*layout, sources, tensor.detach().clone() if is_short else None)

    @property
    def can_require_grad(self) -> bool:
        """Whether gradients are defined for its type."""
        return self.dtype.is_floating_point or self.dtype.is_complex

    @property
    def layout(self) -> tuple[Any, ...]:
        """What its cost depends on."""
        return self.shape, self.stride, self.dtype, str(self.device)

    def empty(self) -> Tensor:
        """A tensor like it, with arbitrary numbers."""
        return torch.empty_strided(self.shape, self.stride, dtype=self.dtype, device=self.device)

    def sample(self) -> Tensor:
        """A tensor like it with usable numbers: those it kept, else normal ones, 0 or True."""
        if self.value is not None:
            return self.value.clone()
        if self.can_require_grad:
            return torch.randn(self.shape, dtype=self.dtype, device=self.device)
        number = int(self.dtype is torch.bool)
        return torch.full(self.shape, number, dtype=self.dtype, device=self.device)


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a unit's module, or of a function that costs FLOPs outside of all of them.

    Args:
        module: qualified name of the module, None for a function.
        function: the function, None for a module.
        leaves: the flattened arguments: a `TensorSpec` per tensor, other objects as they are.
        structure: puts leaves back into (args, kwargs).
        autocast: (device type, dtype) of the active autocast, None if there is none.
        grad_enabled: whether autograd was recording.
        inputs: the flattened arguments with real, detached tensors, if they were kept.
    """

    module: str | None
    function: Callable[..., Any] | None
    leaves: tuple[Any, ...]
    structure: Any
    autocast: tuple[str, torch.dtype] | None = None
    grad_enabled: bool = True
    inputs: tuple[Any, ...] | None = None

    def arguments(self, leaves: Iterable[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """(args, kwargs) with these leaves in their places."""
        args, kwargs = unflatten(leaves, self.structure)
        return args, kwargs


@dataclass(frozen=True, slots=True)
class Trace:
    """What one forward pass did.

    Args:
        records: the calls, in order.
        live: numbers of the calls that the loss depends on; None if the loss is not known, then all
            count.

    Example:
        >>> first, second = (Call(name, None, (), None) for name in ("layer.0", "layer.1"))
        >>> trace = Trace((first, second, first), live=frozenset({0, 1}))
        >>> trace.calls, trace.is_live(2)
        (('layer.0', 'layer.1', 'layer.0'), False)
    """

    records: tuple[Call, ...]
    live: frozenset[int] | None = None

    @property
    def calls(self) -> tuple[str, ...]:
        """Names of the units' modules in the order of their calls, repeated calls repeated."""
        return tuple(call.module for call in self.records if call.module is not None)

    def is_live(self, number: int) -> bool:
        """Whether the backward pass goes through that call."""
        return self.records[number].grad_enabled and (self.live is None or number in self.live)
