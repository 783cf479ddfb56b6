"""Which samples a call is about: a key per row of its arguments, independent of padding."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree as pytree  # torch has no public tree utilities yet

from lightning_attnbal.apply.cache._reasons import NotCacheableError

_PLAIN = (type(None), bool, int, float, complex, str, bytes, torch.dtype, torch.device)
_KEY_BYTES = 16
_IS_PADDING = ("padding_mask",)
_LENGTHS = ("lengths", "length", "seq_lengths", "seq_len")


@dataclass(frozen=True, eq=False)
class Rows:
    """What a call was given, sample by sample.

    Args:
        count: B, the number of samples.
        keys: one per sample; equal if and only if all that the sample was given is equal (up to a
            collision of 128-bit BLAKE2b, about 1e-27 among 1e6 samples).
        real: (B, L) booleans, which positions are no padding; None if rows are kept whole.
        layout: shapes and types of all arguments but B: calls of one layout return alike shapes.
        tensors: the tensors among the arguments.
    """

    count: int
    keys: tuple[bytes, ...]
    real: Tensor | None
    layout: tuple[Any, ...]
    tensors: tuple[Tensor, ...]

    @property
    def is_padded(self) -> bool:
        """Whether some position is padding."""
        return self.real is not None and not bool(self.real.all())

    @property
    def is_clear(self) -> bool:
        """Whether a first dimension of B can mean nothing but the samples."""
        return all(self.count not in tensor.shape[1:] for tensor in self.tensors)


def identify(
    forward: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], *, trim: bool
) -> Rows:
    """Read the samples off the arguments of a call.

    The samples are along the first dimension, B being that of the first tensor; tensors of another
    first dimension, and plain values, belong to every sample. With `trim`, padding is no part of a
    sample: positions that an argument named like `attention_mask` (1: keep), `..._padding_mask`
    (True: padding) or `lengths` rules out are left away from everything of shape (B, L, …).

    Raises:
        NotCacheableError: no tensor, or an argument that is neither tensor nor plain value.

    Example:
        >>> def forward(ids, attention_mask=None): ...
        >>> mask = torch.tensor([[1, 1, 0], [1, 1, 1]])
        >>> rows = identify(forward, [torch.tensor([[5, 6, 0], [5, 6, 0]]), mask], {}, trim=True)
        >>> short = identify(forward, [torch.tensor([[5, 6]]), mask[:1, :2]], {}, trim=True)
        >>> rows.keys[0] == short.keys[0], rows.keys[0] == rows.keys[1]
        (True, False)
    """
    named = _named(forward, args, kwargs)
    tensors = [(name, leaf) for name, leaf in named if isinstance(leaf, Tensor)]
    sized = [tensor for _, tensor in tensors if tensor.dim()]
    if not sized:
        msg = "no argument is a tensor of samples"
        raise NotCacheableError(msg)
    count = len(sized[0])
    real = _real_positions(tensors, count) if trim else None
    digests = [hashlib.blake2b(_precision(sized[0]), digest_size=_KEY_BYTES) for _ in range(count)]
    counts = None if real is None else real.sum(dim=1).tolist()
    for name, leaf in named:
        for digest, content in zip(digests, _contents(leaf, count, real, counts), strict=True):
            digest.update(name.encode())
            digest.update(content[0].encode())
            digest.update(content[1])
    layout = tuple(
        (name, tuple(x.shape[1:]) if _is_per_row(x, count) else tuple(x.shape), str(x.dtype))
        for name, x in tensors
    )
    keys = tuple(digest.digest() for digest in digests)
    return Rows(count, keys, real, layout, tuple(tensor for _, tensor in tensors))


def _precision(tensor: Tensor) -> bytes:
    """The autocast in force, under which the same weights give something else."""
    device = tensor.device.type
    return str(torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device)).encode()


def _named(
    forward: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> list[tuple[str, Any]]:
    """Every leaf of the arguments with the name of its parameter and the way to it."""
    bound = inspect.signature(forward).bind(*args, **kwargs)
    leaves, _ = pytree.tree_flatten_with_path(dict(bound.arguments))
    named = [(pytree.keystr(path), leaf) for path, leaf in leaves]
    for name, leaf in named:
        if not isinstance(leaf, (Tensor, np.ndarray, *_PLAIN)):
            msg = f"argument {name} is a {type(leaf).__name__}, whose content cannot be told"
            raise NotCacheableError(msg)
    return [
        (name, torch.from_numpy(leaf) if isinstance(leaf, np.ndarray) else leaf)
        for name, leaf in named
    ]


def _is_per_row(tensor: Tensor, count: int) -> bool:
    return tensor.dim() > 0 and len(tensor) == count


def _real_positions(tensors: Sequence[tuple[str, Tensor]], count: int) -> Tensor | None:
    """(B, L) booleans from the one argument that tells what is padding, or None."""
    found = [mask for name, x in tensors if (mask := _read_mask(name, x, tensors)) is not None]
    if len(found) != 1 or found[0].shape[0] != count or not bool(found[0].any(dim=1).all()):
        return None
    return found[0]


def _read_mask(name: str, tensor: Tensor, tensors: Sequence[tuple[str, Tensor]]) -> Tensor | None:
    word = name.rstrip("']").rsplit("'", 1)[-1].lower()
    if tensor.dim() == 2 and not tensor.is_floating_point():
        if word.endswith(_IS_PADDING):
            return tensor == 0
        keeps = word == "mask" or word.endswith("attention_mask")
        if keeps and bool(((tensor == 0) | (tensor == 1)).all()):
            return tensor == 1
    if word in _LENGTHS and tensor.dim() == 1 and not tensor.is_floating_point():
        widths = {x.shape[1] for _, x in tensors if x.dim() > 1 and len(x) == len(tensor)}
        if len(widths) == 1 and int(tensor.max()) <= (width := widths.pop()):
            return torch.arange(width, device=tensor.device) < tensor[:, None]
    return None


def _contents(
    leaf: Any, count: int, real: Tensor | None, counts: Sequence[int] | None
) -> list[tuple[str, Any]]:
    """Per row: what kind of thing the leaf is, and its bytes."""
    if not isinstance(leaf, Tensor):
        return [(f"{type(leaf).__name__}:{leaf!r}", b"")] * count
    if not _is_per_row(leaf, count):
        return [(f"{leaf.dtype}{tuple(leaf.shape)}", _bytes(leaf))] * count
    trims = real is not None and leaf.shape[:2] == real.shape
    if not trims:
        return [(f"{leaf.dtype}{tuple(row.shape)}", row) for row in _rows(leaf)]
    assert real is not None
    assert counts is not None
    kept = _bytes(leaf[real])
    size = len(kept) // max(1, sum(counts))
    ends = np.cumsum(counts) * size
    shape = tuple(leaf.shape[2:])
    return [
        (f"{leaf.dtype}{(n, *shape)}", kept[end - n * size : end])
        for n, end in zip(counts, ends.tolist(), strict=True)
    ]


def _rows(leaf: Tensor) -> Any:
    """The rows of a tensor as arrays of bytes."""
    data = np.frombuffer(_bytes(leaf), dtype=np.uint8)
    return data.reshape(len(leaf), data.size // len(leaf))


def _bytes(tensor: Tensor) -> memoryview:
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return memoryview(flat.view(torch.uint8).numpy())  # numpy has no bfloat16
