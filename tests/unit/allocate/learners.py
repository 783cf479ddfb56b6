"""Problems and runs for the tests of forecasts."""

from __future__ import annotations

from lightning_attnbal.allocate import CurvePrior, Progress, Segment
from lightning_attnbal.core import FROZEN, FULL, Menu, Option, Problem

EPOCH = 100
FAR = 1e12  # steps
OPEN = CurvePrior(passes=1e12)
STEPS_ONLY = CurvePrior(own=0.0, half=0.0, passes=1e12)


def problem_of(*worth: float) -> Problem:
    """Units "0", "1", ... of these contributions."""
    menus = [
        Menu(str(i), (Option(level=FROZEN, cost=1), Option(level=FULL, cost=2, value=value)))
        for i, value in enumerate(worth)
    ]
    return Problem(tuple(menus))


def layers(*values: float, above: float = 1.0) -> Problem:
    """Equal layers that differ in value only, nearest the input first."""
    menus = [
        Menu(
            f"layer.{i}",
            (
                Option(level=FROZEN, cost=1, cost_above=above),
                Option(level=FULL, cost=2, cost_above=above, value=value),
            ),
        )
        for i, value in enumerate(values)
    ]
    return Problem(tuple(menus), fixed=0.5)


def ran(*trained: str, num: int = 8, tau: float = 20.0, fresh: frozenset[str] = frozenset()):
    """A run whose loss fell as such curves do."""
    parts = [
        Segment(trained=trained, steps=5, loss=0.4 + (1 + (5 * i + 2.5) / tau) ** -2)
        for i in range(num)
    ]
    return Progress(segments=tuple(parts), fresh=fresh)
