"""What the modules of a prefix return: its form, and how to make it up from stored rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree  # torch has no public tree utilities yet

from lightning_attnbal.apply.cache._padding import Span
from lightning_attnbal.apply.cache._reasons import NotCacheableError

Place = tuple[int, int]
"""A tensor that leaves the prefix: number of the call, position among what it returns."""


@dataclass(frozen=True, slots=True)
class Leaf:
    """A tensor among the results of a call, all but its numbers.

    Args:
        shape: its sizes without `axis`.
        axis: the dimension of the samples, None if all samples share the tensor.
        dtype: its type.
        device: where it lives.
    """

    shape: tuple[int, ...]
    axis: int | None
    dtype: torch.dtype
    device: torch.device

    @classmethod
    def of(cls, tensor: Tensor) -> Leaf:
        """The form of `tensor`, as if all samples shared it.

        Raises:
            NotCacheableError: it is not a plain, dense tensor.
        """
        if tensor.is_nested or tensor.layout is not torch.strided or tensor.is_quantized:
            msg = "a layer returns a tensor that is not dense"
            raise NotCacheableError(msg)
        return cls(tuple(tensor.shape), None, tensor.dtype, tensor.device)

    def axes(self, count: int, *, is_clear: bool) -> frozenset[int | None]:
        """Which dimensions may be that of `count` samples: the first, or that of RNN states.

        Args:
            count: B, the number of samples.
            is_clear: whether a size of B can mean nothing else.
        """
        may_be = range(2 if len(self.shape) == 3 else 1)
        found: list[int | None] = [i for i in may_be if self.shape[i : i + 1] == (count,)]
        if not found or not is_clear:
            found.append(None)
        return frozenset(found)

    def along(self, axis: int | None) -> Leaf:
        """The same form with its dimension of samples named."""
        if axis is None or axis < 0:
            return self
        return replace(self, shape=self.shape[:axis] + self.shape[axis + 1 :], axis=axis)

    def full_shape(self, count: int) -> tuple[int, ...]:
        """The sizes with `count` samples."""
        if self.axis is None:
            return self.shape
        return (*self.shape[: self.axis], count, *self.shape[self.axis :])

    def nothing(self, count: int) -> Tensor:
        """NaN everywhere: should it ever reach the loss, it shows."""
        shape = self.full_shape(count)
        if not (self.dtype.is_floating_point or self.dtype.is_complex):
            return torch.zeros(shape, dtype=self.dtype, device=self.device)
        return torch.full(shape, torch.nan, dtype=self.dtype, device=self.device)


@dataclass(frozen=True, slots=True)
class Result:
    """The form of what one call returns: `Leaf` per tensor, other objects as they are."""

    leaves: tuple[Any, ...]
    structure: Any

    @classmethod
    def of(cls, result: Any) -> Result:
        """The form of `result`.

        Raises:
            NotCacheableError: it holds something other than tensors and plain values.
        """
        leaves, structure = pytree.tree_flatten(result)
        forms = tuple(Leaf.of(x) if isinstance(x, Tensor) else x for x in leaves)
        for form in forms:
            if not isinstance(form, (Leaf, type(None), bool, int, float, str)):
                msg = f"a layer returns a {type(form).__name__}"
                raise NotCacheableError(msg)
        return cls(forms, structure)

    def along(self, axes: Sequence[int | None]) -> Result:
        """The same form with the dimension of samples of each tensor named."""
        pairs = zip(self.leaves, axes, strict=True)
        named = (x.along(axis) if isinstance(x, Leaf) else x for x, axis in pairs)
        return Result(tuple(named), self.structure)

    def fill(self, count: int, known: Mapping[int, Tensor]) -> Any:
        """A result with the known tensors, by position, in place, and NaN for the others."""
        leaves = [
            (known[i] if i in known else form.nothing(count)) if isinstance(form, Leaf) else form
            for i, form in enumerate(self.leaves)
        ]
        return pytree.tree_unflatten(leaves, self.structure)


@dataclass
class Known:
    """Tensors of the whole batch that were read, for calls `0 … until - 1`."""

    until: int = 0
    forms: Sequence[Result] = ()
    tensors: Mapping[Place, Tensor] = field(default_factory=dict)

    def copied(self) -> Known:
        """The same with tensors of its own."""
        return replace(self, tensors={place: x.clone() for place, x in self.tensors.items()})


def pick(tree: Any, positions: Tensor, count: int) -> Any:
    """Everything that is along the samples, for some of them only."""

    def some(leaf: Any) -> Any:
        is_along = isinstance(leaf, Tensor) and leaf.dim() > 0 and len(leaf) == count
        return leaf.index_select(0, positions.to(leaf.device)) if is_along else leaf

    return pytree.tree_map(some, tree)


def row(tensor: Tensor, axis: int | None, i: int, kept: Span) -> Tensor:
    """One sample of a tensor, without its padding; the whole tensor if all samples share it."""
    if axis is None:
        return tensor
    one = tensor.select(axis, i)
    return one if kept is None else one[kept]
