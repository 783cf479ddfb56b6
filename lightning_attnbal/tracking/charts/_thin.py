"""Fewer marks for the same picture: neighbours are drawn as one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise, takewhile
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Block:
    """Neighbouring units drawn as one row.

    Args:
        label: short enough for an axis, unlike the other rows' labels.
        members: their full names, in forward order.
    """

    label: str
    members: tuple[str, ...]

    @property
    def name(self) -> str:
        """The members in full: `layer.0`, or `layer.0 … layer.3 (4 units)`."""
        first, last = self.members[0], self.members[-1]
        return first if first == last else f"{first} … {last} ({len(self.members)} units)"


def block_units(units: Sequence[str], max_rows: int, width: int) -> list[Block]:
    """Units in forward order as at most `max_rows` rows, labelled in at most `width` characters.

    Example:
        >>> [block.label for block in block_units(["encoder.layer.0", "head"], 9, width=8)]
        ['…layer.0', 'head']
        >>> (block,) = block_units(["layer.0", "layer.1", "layer.2"], 1, width=9)
        >>> block.label, block.name
        ('layer.0–2', 'layer.0 … layer.2 (3 units)')
    """
    groups = chunk(units, max_rows)
    labels = [_label(group, width) for group in groups]
    if len(set(labels)) < len(labels):
        labels = [f"{i} {_tail(label, width - 4)}" for i, label in enumerate(labels)]
    return [Block(label, tuple(group)) for label, group in zip(labels, groups, strict=True)]


def chunk(items: Sequence[T], max_chunks: int) -> list[Sequence[T]]:
    """Neighbours together, so that there are at most `max_chunks` groups of nearly equal size.

    Example:
        >>> chunk("abcde", 2)
        ['ab', 'cde']
    """
    num = min(len(items), max_chunks)
    edges = [i * len(items) // num for i in range(num + 1)] if num else [0]
    return [items[a:b] for a, b in pairwise(edges)]


def sample(items: Sequence[T], max_items: int) -> list[T]:
    """At most `max_items` of them, evenly spread, always with the first and the last.

    Example:
        >>> sample(range(10), 4)
        [0, 3, 6, 9]
    """
    if len(items) <= max_items:
        return list(items)
    last = len(items) - 1
    return [items[round(i * last / (max_items - 1))] for i in range(max_items)]


def _label(group: Sequence[str], width: int) -> str:
    if len(group) == 1:
        return _tail(group[0], width)
    shared = _common(group[0], group[-1])
    last = _tail(group[-1][len(shared) :].removeprefix("."), width // 2)
    return f"{_tail(group[0], width - len(last) - 1)}–{last}"


def _common(first: str, second: str) -> str:
    """The dotted parts both names begin with."""
    pairs = zip(first.split("."), second.split("."), strict=False)
    return ".".join(a for a, _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def _tail(text: str, width: int) -> str:
    """The end of a name, where it differs from its neighbours' names."""
    return text if len(text) <= width else f"…{text[1 - width :]}"
