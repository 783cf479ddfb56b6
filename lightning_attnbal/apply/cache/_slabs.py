"""Rows in RAM, packed one after another."""

from __future__ import annotations

import contextlib
import mmap
import sys
from typing import Protocol

import torch
from torch import Tensor

_LARGE = 32 * 2**20  # of which one large page of 2 MiB, touched too early, is little


class Segment(Protocol):
    """Something that rows lie in."""

    def load(self, offset: int, num_bytes: int, crc: int) -> Tensor | None:
        """The bytes of a row (uint8), None if they are gone or damaged."""
        ...


class RamSlab:
    """A piece of memory that rows are appended to; what was written never changes.

    Args:
        num_bytes: its size; pages become resident when a row is written to them.
    """

    def __init__(self, num_bytes: int) -> None:
        self._data = _pages(num_bytes)
        self._size = num_bytes
        self._used = 0

    def has_room(self, num_bytes: int) -> bool:
        """Whether a row of this size fits."""
        return self._used + num_bytes <= self._size

    def next(self, num_bytes: int) -> Tensor:
        """Where the next row goes; it stays free until `commit`."""
        return self._data[self._used : self._used + num_bytes]

    def commit(self, num_bytes: int) -> int:
        """The next row was written: its offset."""
        self._used += num_bytes
        return self._used - num_bytes

    def load(self, offset: int, num_bytes: int, crc: int) -> Tensor:  # noqa: ARG002
        """A view of the bytes of a row; memory needs no checksum."""
        return self._data[offset : offset + num_bytes]


def _pages(num_bytes: int) -> Tensor:
    """Anonymous memory: unlike the heap it goes back to the system as soon as it is let go."""
    size = max(1, num_bytes)
    if sys.platform == "win32":
        pages = mmap.mmap(-1, size)
    else:
        pages = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if size >= _LARGE and hasattr(mmap, "MADV_HUGEPAGE"):
        with contextlib.suppress(OSError):  # first writes are three times as fast then
            pages.madvise(mmap.MADV_HUGEPAGE)
    with torch.inference_mode(mode=False):  # else nobody could write to it after a validation
        return torch.frombuffer(pages, dtype=torch.uint8)
