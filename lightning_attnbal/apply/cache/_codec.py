"""How the tensors of a row become bytes and back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Encoding = Literal["exact", "float32", "bfloat16", "float16", "int8"]
ENCODINGS = ("exact", "float32", "bfloat16", "float16", "int8")
DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (
        *(torch.float64, torch.float32, torch.float16, torch.bfloat16),
        *(torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz),
        *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool),
        *(torch.uint16, torch.uint32, torch.uint64, torch.complex64, torch.complex128),
    )
}
NAMES = {dtype: name for name, dtype in DTYPES.items()}
_ALIGN = 16  # the largest item, complex128: a view as another dtype must start at a multiple of it
_LARGEST_INT8 = 127


def aligned(nbytes: int) -> int:
    """The next multiple of the alignment."""
    return -(-nbytes // _ALIGN) * _ALIGN


@dataclass(frozen=True, slots=True)
class Leaf:
    """One tensor of a row: its shape, the dtype it was given in and the one it is stored in.

    A floating leaf stored as int8 has one float32 scale per vector of its last axis.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    stored: torch.dtype

    @property
    def is_scaled(self) -> bool:
        """Whether it is stored as int8 with scales."""
        return self.stored is torch.int8 and self.dtype.is_floating_point

    @property
    def num_bytes(self) -> int:
        """Bytes of the values, without the scales."""
        return math.prod(self.shape) * self.stored.itemsize

    @property
    def scale_shape(self) -> tuple[int, ...]:
        """One scale per vector of the last axis."""
        return (*self.shape[:-1], 1)


class Layout:
    """Where each leaf lies in the bytes of a row; equal for all rows of the same shapes."""

    def __init__(self, leaves: Sequence[Leaf]) -> None:
        self.leaves = tuple(leaves)
        self.shapes = tuple(leaf.shape for leaf in leaves)
        self.dtypes = tuple(leaf.dtype for leaf in leaves)
        self.is_exact = all(leaf.dtype is leaf.stored for leaf in leaves)
        self._values, self._scales, end = [], [], 0
        for leaf in leaves:
            self._values.append((end, end + leaf.num_bytes))
            end = aligned(end + leaf.num_bytes)
            scales = 4 * math.prod(leaf.scale_shape) if leaf.is_scaled else 0
            self._scales.append((end, end + scales))
            end = aligned(end + scales)
        self.num_bytes = end

    def _views(self, data: Tensor, i: int) -> tuple[Tensor, Tensor]:
        """The values of leaf `i` and its scales, as views of the bytes of a row."""
        leaf = self.leaves[i]
        start, stop = self._scales[i]
        scales = data[start:stop].view(torch.float32).view(leaf.scale_shape)
        return self._view(data, i), scales

    def _view(self, data: Tensor, i: int) -> Tensor:
        start, stop = self._values[i]
        leaf = self.leaves[i]
        return data[start:stop].view(leaf.stored).view(leaf.shape)

    def misfit(self, out: Sequence[Tensor]) -> str | None:
        """Why a row cannot be decoded into `out`, or None; shapes and kinds must agree."""
        if len(out) != len(self.leaves):
            return f"Expected {len(self.leaves)} tensors per row, but got {len(out)}."
        for leaf, target in zip(self.leaves, out, strict=True):
            if target.shape != leaf.shape:  # `copy_` would broadcast
                return f"Expected a tensor of shape {leaf.shape}, but got {tuple(target.shape)}."
            both = target.dtype.is_floating_point and leaf.dtype.is_floating_point
            if target.dtype is not leaf.dtype and not both:
                return f"Expected a tensor of {leaf.dtype}, but got {target.dtype}."
        return None

    def decode(self, data: Tensor, out: Sequence[Tensor]) -> None:
        """Write the row into `out`, whatever its strides, device and floating dtype."""
        for i, target in enumerate(out):
            if self.leaves[i].is_scaled:
                values, scales = self._views(data, i)
                target.copy_(values * scales)
            else:
                target.copy_(self._view(data, i))

    def encode(self, row: Sequence[Tensor], data: Tensor) -> bool:
        """Write a row into its bytes; False if a value is beyond the range of the stored dtype."""
        for i, (leaf, tensor) in enumerate(zip(self.leaves, row, strict=True)):
            source = tensor.detach()
            if leaf.is_scaled:
                values, scales = self._views(data, i)
                if not _quantise(source, values, scales):
                    return False
            elif leaf.stored is leaf.dtype or _is_within(source, leaf.stored):
                self._view(data, i).copy_(source)
            else:
                return False
        return True

    def error(self, row: Sequence[Tensor], data: Tensor) -> float:
        """Largest |decoded - given| of a leaf, as a share of that leaf's largest entry."""
        worst = 0.0
        for i, (leaf, tensor) in enumerate(zip(self.leaves, row, strict=True)):
            if leaf.stored is not leaf.dtype:
                given = tensor.detach().to("cpu", torch.float64)
                stored = self._view(data, i).to(torch.float64)
                if leaf.is_scaled:
                    stored = stored * self._views(data, i)[1]
                largest = float(given.abs().max())
                worst = max(worst, float((stored - given).abs().max()) / (largest or 1.0))
        return worst


def _is_within(source: Tensor, stored: torch.dtype) -> bool:
    """Whether no value is NaN, infinite, or would become so."""
    low, high = torch.aminmax(source)
    limit = torch.finfo(stored).max
    return low.item() >= -limit and high.item() <= limit


def _quantise(source: Tensor, values: Tensor, scales: Tensor) -> bool:
    """Nearest of 255 steps up to the largest magnitude of each vector; False if not finite."""
    wide = source.to(torch.float32)
    steps = wide.abs().amax(-1, keepdim=True).div_(_LARGEST_INT8)
    if not torch.isfinite(steps).all():
        return False
    steps.masked_fill_(steps == 0, 1.0)
    values.copy_((wide / steps).round_())
    scales.copy_(steps)
    return True


class Codec:
    """Chooses how rows are stored; layouts are made once per combination of shapes.

    Args:
        encoding: `exact`, or what floating leaves are narrowed to. A leaf is never widened, and
            never narrowed where scales would make it larger.
    """

    def __init__(self, encoding: Encoding) -> None:
        self._encoding = encoding
        self._layouts: dict[tuple[object, ...], Layout] = {}
        self._by_leaves: dict[tuple[Leaf, ...], Layout] = {}

    def layout(self, row: Sequence[Tensor], *, exact: bool = False) -> Layout:
        """How `row` would be stored; with `exact`, bit for bit."""
        key = (exact, *((tensor.shape, tensor.dtype, tensor.layout) for tensor in row))
        found = self._layouts.get(key)
        if found is None:
            found = self.shared(Layout([self._leaf(tensor, exact=exact) for tensor in row]))
            self._layouts[key] = found
        return found

    def shared(self, layout: Layout) -> Layout:
        """The one of all equal layouts."""
        return self._by_leaves.setdefault(layout.leaves, layout)

    def _leaf(self, tensor: Tensor, *, exact: bool) -> Leaf:
        if tensor.dtype not in NAMES or tensor.layout is not torch.strided:
            known = ", ".join(DTYPES)
            msg = (
                f"Expected dense tensors of one of {known}, but got {tensor.dtype} "
                f"with layout {tensor.layout}."
            )
            raise TypeError(msg)
        shape = tuple(tensor.shape)
        same = Leaf(shape, tensor.dtype, tensor.dtype)
        if exact or self._encoding == "exact" or not tensor.dtype.is_floating_point:
            return same
        if not tensor.numel() or not shape:
            return same
        narrow = Leaf(shape, tensor.dtype, DTYPES[self._encoding])
        scales = 4 * math.prod(narrow.scale_shape) if narrow.is_scaled else 0
        return narrow if narrow.num_bytes + scales < same.num_bytes else same
