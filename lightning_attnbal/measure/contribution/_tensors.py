"""Sums over lists of tensors, in enough precision, with one wait for the device."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor


def wide(tensor: Tensor) -> Tensor:
    """The tensor without history, dense and in float32 at least.

    Example:
        >>> wide(torch.ones(2, dtype=torch.bfloat16)).dtype
        torch.float32
    """
    tensor = tensor.detach()
    if tensor.layout != torch.strided:
        tensor = tensor.to_dense()
    if tensor.dtype in {torch.float32, torch.float64}:
        return tensor  # the usual case, spared a call
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def end_to_end(tensors: Sequence[Tensor]) -> Tensor:
    """(N,) all numbers, one tensor's after the other's; of one tensor alone it may be a view.

    Example:
        >>> end_to_end([torch.ones(2, 1), torch.zeros(1)])
        tensor([1., 1., 0.])
    """
    flat = [wide(tensor).flatten() for tensor in tensors]
    return flat[0] if len(flat) == 1 else torch.cat(flat)


def total(scalars: Iterable[Tensor]) -> float:
    """Sum of scalar tensors that may lie on several devices; 0 for none.

    Example:
        >>> total([torch.tensor(1.0), torch.tensor(2.0)])
        3.0
    """
    scalars = list(scalars)
    if not scalars:
        return 0.0
    return float(torch.stack([s.to(scalars[0].device) for s in scalars]).sum())


def dot(a: Sequence[Tensor], b: Sequence[Tensor]) -> float:
    """Σ over all tensors and entries of a · b.

    Example:
        >>> dot([torch.ones(3)], [torch.full((3,), 2.0)])
        6.0
    """
    return total(torch.sum(wide(x) * wide(y)) for x, y in zip(a, b, strict=True))


def check_same_shapes(name_a: str, a: Sequence[Tensor], name_b: str, b: Sequence[Tensor]) -> None:
    """Refuse lists of tensors that would not pair up; broadcasting would hide a mistake.

    Raises:
        ValueError: they differ in number or shape.

    Example:
        >>> check_same_shapes("update", [torch.ones(2)], "gradient", [torch.ones(2, 1)])
        Traceback (most recent call last):
        ValueError: Expected `update` and `gradient` to have the same shapes, but got ...
    """
    shapes_a, shapes_b = [tuple(x.shape) for x in a], [tuple(x.shape) for x in b]
    if shapes_a != shapes_b:
        msg = (
            f"Expected `{name_a}` and `{name_b}` to have the same shapes, "
            f"but got {shapes_a} and {shapes_b}."
        )
        raise ValueError(msg)
