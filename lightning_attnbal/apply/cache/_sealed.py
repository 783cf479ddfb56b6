"""The index beside a slab file; read as if anybody could have written it."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from lightning_attnbal.apply.cache._codec import DTYPES, NAMES, Layout, Leaf, aligned

VERSION = 1
_MAX_DIMS = 32
_MAX_NUMEL = 2**48
_MAX_KEY = 512  # bytes
_CRC_END = 2**32
_MAX_ERROR = 1e9


SealedRow = tuple[bytes, int, Layout, int]  # key, offset, layout, CRC-32


@dataclass(frozen=True, slots=True, kw_only=True)
class Sealed:
    """What an index says; `error` is the largest measured when the rows were stored."""

    rows: tuple[SealedRow, ...]
    error: float

    @property
    def dtypes(self) -> tuple[torch.dtype, ...] | None:
        """Of the tensors of each row, None if there is no row."""
        return self.rows[0][2].dtypes if self.rows else None


def dump_index(space: str, rows: Sequence[SealedRow], error: float) -> str:
    """The index of a slab as JSON."""
    numbers: dict[Layout, int] = {}
    layout_of = [numbers.setdefault(layout, len(numbers)) for _, _, layout, _ in rows]
    content = {
        "version": VERSION,
        "space": space,
        "error": error,
        "layouts": [[_leaf_record(leaf) for leaf in layout.leaves] for layout in numbers],
        "keys": [key.hex() for key, _, _, _ in rows],
        "offsets": [offset for _, offset, _, _ in rows],
        "sizes": [layout.num_bytes for _, _, layout, _ in rows],
        "layout_of": layout_of,
        "crc32": [crc for _, _, _, crc in rows],
    }
    return json.dumps(content, separators=(",", ":"))


def parse_index(text: str, space: str, num_bytes: int) -> Sealed:
    """Read an index.

    Args:
        text: the JSON.
        space: name of the space it should belong to.
        num_bytes: size of the slab file, which no row may leave.

    Raises:
        ValueError: something in it is not as it should be; says what.
    """
    try:
        content = json.loads(text)
    except RecursionError:
        content = None
    _require(isinstance(content, dict), "it is not an object")
    _require(content.get("version") == VERSION, f"its version is not {VERSION}")
    _require(content.get("space") == space, "it belongs to another space")
    error = content.get("error")
    _require(isinstance(error, int | float) and 0 <= error <= _MAX_ERROR, "`error` is off")
    layouts = tuple(_layout(leaves) for leaves in _list(content, "layouts"))
    _require(len({layout.dtypes for layout in layouts}) <= 1, "its rows differ in dtypes")
    return Sealed(rows=_rows(content, layouts, num_bytes), error=float(error))


def _rows(
    content: dict[str, Any], layouts: tuple[Layout, ...], num_bytes: int
) -> tuple[SealedRow, ...]:
    names = ("keys", "offsets", "sizes", "layout_of", "crc32")
    keys, offsets, sizes, numbers, crcs = (_list(content, name) for name in names)
    _require(len({*map(len, (keys, offsets, sizes, numbers, crcs))}) == 1, "its lists differ")
    rows = []
    for key, offset, size, number, crc in zip(keys, offsets, sizes, numbers, crcs, strict=True):
        _require(isinstance(key, str) and len(key) <= 2 * _MAX_KEY, "a key is not text")
        _require(_is_integer(number, len(layouts)), "a row has no layout")
        _require(_is_integer(crc, _CRC_END), "a checksum is out of range")
        _require(_is_integer(offset, num_bytes + 1), "a row lies outside the file")
        _require(offset == aligned(offset), "a row is not aligned")
        _require(type(size) is int and size == layouts[number].num_bytes, "a size is wrong")
        _require(offset + size <= num_bytes, "a row lies outside the file")
        rows.append((bytes.fromhex(key), offset, layouts[number], crc))
    return tuple(rows)


def _layout(leaves: object) -> Layout:
    if not isinstance(leaves, list):
        msg = "a layout is not a list"
        raise ValueError(msg)
    return Layout([_leaf(leaf) for leaf in leaves])


def _leaf(record: object) -> Leaf:
    if not isinstance(record, dict):
        msg = "a leaf is not an object"
        raise ValueError(msg)
    given, stored = record.get("dtype"), record.get("stored")
    shape = _list(record, "shape")
    _require(len(shape) <= _MAX_DIMS, "a shape is too long")
    _require(all(_is_integer(size, _MAX_NUMEL) for size in shape), "a size is out of range")
    _require(math.prod(max(1, size) for size in shape) <= _MAX_NUMEL, "a shape is too large")
    for name in (given, stored):
        _require(isinstance(name, str) and name in DTYPES, "a dtype is unknown")
    leaf = Leaf(tuple(shape), DTYPES[str(given)], DTYPES[str(stored)])
    both = leaf.dtype.is_floating_point and leaf.stored.is_floating_point
    _require(leaf.stored is leaf.dtype or both or (leaf.is_scaled and shape), "dtypes do not match")
    return leaf


def _leaf_record(leaf: Leaf) -> dict[str, object]:
    return {"shape": leaf.shape, "dtype": NAMES[leaf.dtype], "stored": NAMES[leaf.stored]}


def _list(content: dict[str, Any], name: str) -> list[Any]:
    value = content.get(name)
    if not isinstance(value, list):
        msg = f"`{name}` is not a list"
        raise ValueError(msg)
    return value


def _is_integer(value: object, end: int) -> bool:
    """Whether it is an integer in [0, end); true and false are not."""
    return type(value) is int and 0 <= value < end


def _require(condition: object, problem: str) -> None:
    if not condition:
        raise ValueError(problem)
