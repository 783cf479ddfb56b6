"""Which samples a call is about: a key per row of its arguments, independent of padding."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence
from torch.utils import _pytree as pytree  # torch has no public tree utilities yet

from lightning_attnbal.apply.cache._padding import holes, offsets, real_positions
from lightning_attnbal.apply.cache._reasons import NotCacheableError

PLAIN = (type(None), bool, int, float, complex, str, bytes, torch.dtype, torch.device)
"""Types whose `repr` tells all there is to know."""

_KEY_BYTES = 16


@dataclass(frozen=True, eq=False)
class Rows:
    """What a call was given, sample by sample.

    Args:
        count: B, the number of samples.
        keys: one per sample; equal if and only if all that the sample was given is equal (up to a
            collision of 128-bit BLAKE2b, about 1e-27 among 1e6 samples).
        real: (B, L) booleans, which positions are no padding; None if rows are kept whole.
        layout: shapes and types of all arguments but B, and the autocast in force: calls of one
            layout return alike shapes and types.
        tensors: the tensors among the arguments.
        shared: names of those whose first dimension is not B; they belong to every sample.
        autocast: the type in force, if any.
    """

    count: int
    keys: tuple[bytes, ...]
    real: Tensor | None
    layout: tuple[Any, ...]
    tensors: tuple[Tensor, ...]
    shared: frozenset[str]
    autocast: torch.dtype | None

    @property
    def is_padded(self) -> bool:
        """Whether some position is padding."""
        return self.real is not None and not bool(self.real.all())

    @property
    def is_clear(self) -> bool:
        """Whether a first dimension of B can mean nothing but the samples."""
        return self.count > 1 and all(self.count not in x.shape[1:] for x in self.tensors)

    @cached_property
    def offsets(self) -> Sequence[tuple[int, int]]:
        """How each sample is padded: (padded length, where it starts)."""
        return offsets(self.real, self.count)


def identify(
    forward: Callable[..., Any],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    *,
    trim: bool,
    shared: Collection[str] = (),
    setting: bytes = b"",
) -> Rows:
    """Read the samples off the arguments of a call.

    The samples are along the first dimension, B being that of the first tensor; tensors of another
    first dimension, and plain values, belong to every sample. With `trim`, padding is no part of a
    sample: positions that an argument named like `attention_mask` (1: keep), `..._padding_mask`
    (True: padding) or `lengths` rules out are left away from everything of shape (B, L, …).

    Args:
        forward: what is called; its parameters name the arguments.
        args: positional arguments.
        kwargs: keyword arguments.
        trim: whether padding is left away.
        shared: names of tensors that belong to every sample even if their first dimension is B now.
        setting: what else every row depends on.

    Raises:
        NotCacheableError: no tensor, or an argument that is neither a dense tensor nor a plain
            value, or needs a gradient.

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
    sized = [tensor for _, tensor in tensors if tensor.dim() and len(tensor)]
    if not sized:
        msg = "no argument is a tensor of samples"
        raise NotCacheableError(msg)
    count, autocast = len(sized[0]), _autocast(sized[0])
    for_all = {name for name, x in tensors if not x.dim() or len(x) != count}.union(shared)
    real = real_positions([pair for pair in tensors if pair[0] not in for_all], count)
    real = real if trim else None
    digests = [
        hashlib.blake2b(_framed(str(autocast).encode(), setting, gaps), digest_size=_KEY_BYTES)
        for gaps in holes(real, count)
    ]
    counts = None if real is None else real.sum(dim=1).tolist()
    for name, leaf in named:
        is_shared = name in for_all or not isinstance(leaf, Tensor)
        contents = [_whole(leaf)] * count if is_shared else _by_row(leaf, real, counts)
        heads = {kind: _framed(name.encode(), kind.encode()) for kind in {k for k, _ in contents}}
        for digest, (kind, content) in zip(digests, contents, strict=True):
            digest.update(heads[kind])  # from which the length of the content follows
            digest.update(content)
    layout = tuple(
        (name, tuple(x.shape) if name in for_all else tuple(x.shape[1:]), str(x.dtype), x.device)
        for name, x in tensors
    )
    return Rows(
        count,
        tuple(digest.digest() for digest in digests),
        real,
        (autocast, *layout),
        tuple(tensor for _, tensor in tensors),
        frozenset(for_all),
        autocast,
    )


def _framed(*parts: bytes) -> bytes:
    """Parts joined so that they can be told apart."""
    return b"".join(len(part).to_bytes(8) + part for part in parts)


def _autocast(tensor: Tensor) -> torch.dtype | None:
    """The autocast in force, under which the same weights give something else."""
    device = tensor.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None


def _named(
    forward: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> list[tuple[str, Any]]:
    """Every leaf of the arguments with the name of its parameter and the way to it."""
    bound = inspect.signature(forward).bind(*args, **kwargs)
    leaves, _ = pytree.tree_flatten_with_path(
        dict(bound.arguments), is_leaf=lambda x: isinstance(x, PackedSequence)
    )
    named = [(pytree.keystr(path), leaf) for path, leaf in leaves]
    return [(name, _checked(name, leaf)) for name, leaf in named]


def _checked(name: str, leaf: Any) -> Any:
    if isinstance(leaf, np.ndarray) and leaf.dtype != object:
        leaf = torch.from_numpy(leaf)
    if not isinstance(leaf, (Tensor, *PLAIN)):
        msg = f"argument {name} is a {type(leaf).__name__}, whose content cannot be told"
        raise NotCacheableError(msg)
    if not isinstance(leaf, Tensor):
        return leaf
    if leaf.is_nested or leaf.layout is not torch.strided or leaf.is_quantized:
        msg = f"argument {name} is a tensor that is not dense"
        raise NotCacheableError(msg)
    if leaf.requires_grad:
        msg = f"argument {name} needs a gradient, which would have to go through it"
        raise NotCacheableError(msg)
    return leaf


def _whole(leaf: Any) -> tuple[str, Any]:
    """What kind of thing a leaf is that belongs to every row, and its bytes."""
    if isinstance(leaf, Tensor):
        return f"{leaf.dtype}{tuple(leaf.shape)}", as_bytes(leaf)
    return f"{type(leaf).__name__}:{leaf!r}", b""


def _by_row(
    leaf: Tensor, real: Tensor | None, counts: Sequence[int] | None
) -> list[tuple[str, Any]]:
    """Per row: its type and shape without padding, and its bytes."""
    if real is None or counts is None or leaf.shape[:2] != real.shape:
        kind = f"{leaf.dtype}{tuple(leaf.shape[1:])}"
        data = np.frombuffer(as_bytes(leaf), dtype=np.uint8)
        return [(kind, row) for row in data.reshape(len(leaf), data.size // len(leaf))]
    kept = as_bytes(leaf[real.to(leaf.device)])
    size = len(kept) // max(1, sum(counts))
    ends = (np.cumsum(counts) * size).tolist()
    shape = tuple(leaf.shape[2:])
    return [
        (f"{leaf.dtype}{(n, *shape)}", kept[end - n * size : end])
        for n, end in zip(counts, ends, strict=True)
    ]


def as_bytes(tensor: Tensor) -> memoryview:
    r"""The bytes of a tensor's numbers.

    Example:
        >>> bytes(as_bytes(torch.tensor([1.0], dtype=torch.bfloat16)))
        b'\x80?'
    """
    flat = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous().reshape(-1)
    data: Any = flat.view(torch.uint8).numpy()  # numpy has no bfloat16
    return memoryview(data)
