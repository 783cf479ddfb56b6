"""What an allocator compared, kept short enough to be written down at every decision."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TypeVar

from lightning_attnbal.allocate._levels import Levels
from lightning_attnbal.core import Plan, Problem

T = TypeVar("T")

_MOST_RUNS = 6
_MOST_POINTS = 40


def in_words(problem: Problem, levels: Levels) -> str:
    """The plan as text; with more than six runs of equal levels, how many units have each.

    Example:
        >>> from lightning_attnbal.core import FROZEN, FULL, Menu, Option
        >>> options = (Option(level=FROZEN, cost=1), Option(level=FULL, cost=2, value=1))
        >>> problem = Problem(tuple(Menu(f"layer.{i}", options) for i in range(8)))
        >>> in_words(problem, (FROZEN,) * 5 + (FULL,) * 3)
        'frozen: layer.0 … layer.4 · full: layer.5 … layer.7'
        >>> in_words(problem, (FROZEN, FULL) * 4)
        '4 frozen · 4 full'
    """
    runs = 1 + sum(a != b for a, b in pairwise(levels))
    if runs > _MOST_RUNS:
        return " · ".join(f"{levels.count(x)} {x}" for x in dict.fromkeys(levels))
    return str(Plan({menu.unit: x for menu, x in zip(problem.menus, levels, strict=True)}))


def few_of(ordered: Sequence[T], chosen: T) -> list[T]:
    """About forty at most, in their order: evenly spaced ones, both ends, and the chosen one.

    Example:
        >>> few_of(range(100), chosen=7)[:6]
        [0, 3, 6, 7, 9, 12]
    """
    every = -(-len(ordered) // _MOST_POINTS)
    last = len(ordered) - 1
    return [x for i, x in enumerate(ordered) if i % every == 0 or i == last or x is chosen]
