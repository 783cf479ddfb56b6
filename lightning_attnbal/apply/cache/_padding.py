"""Which positions of a sample are padding, as far as the arguments of a call tell."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

_IS_PADDING = ("padding_mask",)
_LENGTHS = ("lengths", "length", "seq_lengths", "seq_len")

Span = Tensor | slice | None
"""The positions of a row that are no padding: their numbers, or a slice, or None for all."""


def real_positions(tensors: Sequence[tuple[str, Tensor]], count: int) -> Tensor | None:
    """(B, L) booleans, which positions are no padding, if exactly one argument tells; else None.

    Args:
        tensors: arguments with their names.
        count: B, the number of samples.

    Example:
        >>> ids = torch.tensor([[4, 5, 0], [6, 7, 8]])
        >>> real_positions([("['ids']", ids), ("['lengths']", torch.tensor([2, 3]))], 2)
        tensor([[ True,  True, False],
                [ True,  True,  True]])
    """
    found = [mask for name, x in tensors if (mask := _read_mask(name, x, tensors)) is not None]
    if len(found) != 1 or len(found[0]) != count or not bool(found[0].any(dim=1).all()):
        return None
    return found[0]


def _read_mask(name: str, tensor: Tensor, tensors: Sequence[tuple[str, Tensor]]) -> Tensor | None:
    word = name.rstrip("']").rsplit("'", 1)[-1].lower()
    if tensor.is_floating_point():
        return None
    if tensor.dim() == 2 and word.endswith(_IS_PADDING):
        return tensor == 0
    if tensor.dim() == 2 and (word == "mask" or word.endswith("attention_mask")):
        return tensor == 1 if bool(((tensor == 0) | (tensor == 1)).all()) else None
    if tensor.dim() == 1 and word in _LENGTHS:
        return _from_lengths(tensor, tensors)
    return None


def _from_lengths(lengths: Tensor, tensors: Sequence[tuple[str, Tensor]]) -> Tensor | None:
    widths = {x.shape[1] for _, x in tensors if x.dim() > 1 and len(x) == len(lengths)}
    if len(widths) != 1 or int(lengths.max()) > (width := widths.pop()):
        return None
    return torch.arange(width, device=lengths.device) < lengths[:, None]


def spans(real: Tensor | None, count: int) -> Sequence[Span]:
    """Per sample which positions are no padding: a slice if they lie together (no copy).

    Example:
        >>> spans(torch.tensor([[0, 1, 1], [1, 0, 1]]).bool(), 2)
        [slice(1, 3, None), tensor([0, 2])]
    """
    if real is None:
        return [None] * count
    lengths, first, last = _extent(real)
    return [
        slice(start, end) if end - start == length else real[i].nonzero()[:, 0]
        for i, (length, start, end) in enumerate(zip(lengths, first, last, strict=True))
    ]


def holes(real: Tensor | None, count: int) -> Sequence[bytes]:
    r"""Per sample where padding lies between positions that are none; empty if nowhere.

    Example:
        >>> holes(torch.tensor([[0, 1, 1], [1, 0, 1]]).bool(), 2)
        [b'', b'\x01\x00\x01']
    """
    if real is None:
        return [b""] * count
    lengths, first, last = _extent(real)
    return [
        b"" if end - start == length else real[i, start:end].cpu().numpy().tobytes()
        for i, (length, start, end) in enumerate(zip(lengths, first, last, strict=True))
    ]


def offsets(real: Tensor | None, count: int) -> Sequence[tuple[int, int]]:
    """Per sample how it is padded: (padded length, where it starts); (0, 0) if it is kept whole."""
    if real is None:
        return [(0, 0)] * count
    return [(real.shape[1], start) for start in _extent(real)[1]]


def _extent(real: Tensor) -> tuple[list[int], list[int], list[int]]:
    """Per row the number of real positions, the first, and the one after the last."""
    numbers = real.int()
    last = real.shape[1] - numbers.flip(1).argmax(dim=1)
    return numbers.sum(dim=1).tolist(), numbers.argmax(dim=1).tolist(), last.tolist()
