"""Key -> where the row lies."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from typing import NamedTuple, TypeVar

from torch import Tensor

from lightning_attnbal.apply.cache._codec import Layout
from lightning_attnbal.apply.cache._slabs import Segment

_T = TypeVar("_T")
_ENTRY = 176  # dict slot (60 right after it grew), number, header of the key, four array items
_LAYOUT = 2048  # with its entries in the dicts; one per combination of shapes


class Row(NamedTuple):
    """Where a row lies: what holds it, first byte there, how it is laid out, CRC-32 (0 in RAM)."""

    segment: Segment
    offset: int
    layout: Layout
    crc: int = 0

    def load(self) -> Tensor | None:
        """Its bytes (uint8), None if they are gone or damaged."""
        return self.segment.load(self.offset, self.layout.num_bytes, self.crc)


class Index:
    """The rows of a space.

    The numbers lie in flat arrays: a tuple per row would take more memory, and a million of them
    would be visited by each full garbage collection.
    """

    def __init__(self) -> None:
        self._rows: dict[bytes, int] = {}
        self._segments: dict[Segment, int] = {}
        self._layouts: dict[Layout, int] = {}
        self._listed: tuple[list[Segment], list[Layout]] = ([], [])
        self._columns = (array("I"), array("Q"), array("I"), array("I"))

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, key: bytes) -> bool:
        return key in self._rows

    def cost(self, key: bytes, layout: Layout) -> int:
        """Upper bound on the bytes that one more row takes here."""
        return _ENTRY + len(key) + (0 if layout in self._layouts else _LAYOUT)

    def find(self, key: bytes) -> Row | None:
        """Where a row lies, None if it is not stored."""
        number = self._rows.get(key)
        return None if number is None else self._row(number)

    def add(self, key: bytes, row: Row) -> None:
        """A row that was not there."""
        segments, layouts = self._listed
        values = (
            _number(row.segment, self._segments, segments),
            row.offset,
            _number(row.layout, self._layouts, layouts),
            row.crc,
        )
        for column, value in zip(self._columns, values, strict=True):
            column.append(value)
        self._rows[key] = len(self._columns[0]) - 1

    def remove(self, key: bytes) -> None:
        """Forget a row, if it is there."""
        self._rows.pop(key, None)

    def items(self) -> Iterator[tuple[bytes, Row]]:
        """Every row, in the order they came."""
        return ((key, self._row(number)) for key, number in self._rows.items())

    def _row(self, number: int) -> Row:
        segments, offsets, layouts, crcs = self._columns
        listed = self._listed
        return Row(
            listed[0][segments[number]], offsets[number], listed[1][layouts[number]], crcs[number]
        )


def _number(value: _T, numbers: dict[_T, int], values: list[_T]) -> int:
    found = numbers.get(value)
    if found is None:
        found = numbers[value] = len(values)
        values.append(value)
    return found
