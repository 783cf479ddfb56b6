"""What a run shows in the terminal while it trains: budget, finish, plan, and what changed."""

from __future__ import annotations

import io
import math
import sys
from collections.abc import Sequence
from itertools import groupby
from typing import Any

import lightning.pytorch as pl
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lightning_attnbal.callbacks._decision import Decision, changes
from lightning_attnbal.core import Change, LevelKind, Plan

_MOST_RUNS = 6
_WIDTH = 80

_LETTERS = {
    LevelKind.CACHED: "c",
    LevelKind.FROZEN: "f",
    LevelKind.DETACHED: "d",
    LevelKind.LOCAL: "L",
    LevelKind.LORA: "R",
    LevelKind.FULL: "F",
}


class ProgressView:
    """Writes into the Trainer's progress bar and, without breaking it, above it.

    Silent where there is none, on other ranks too. `close` gives the bar back as it was.

    Args:
        trainer: whose bar it is.
    """

    def __init__(self, trainer: pl.Trainer) -> None:
        bar: Any = trainer.progress_bar_callback
        is_on = trainer.is_global_zero and bar is not None and getattr(bar, "is_enabled", True)
        self._bar = bar if is_on else None
        self._items: dict[str, str] = {}
        if self._bar is not None:
            self._was_patched = "get_metrics" in vars(self._bar)
            self._get_metrics = self._bar.get_metrics
            self._bar.get_metrics = self._metrics

    def _metrics(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        return {**self._get_metrics(*args, **kwargs), **self._items}

    def show(self, share: float, seconds_left: float, plan: Plan) -> None:
        """Share of the budget spent, in [0, 1], when the run is expected to end, and the plan."""
        if self._bar is None:
            return
        end = {"eta": duration(seconds_left)} if math.isfinite(seconds_left) else {}
        self._items = {"budget": f"{share:.0%}", **end, "plan": short(plan)}

    def announce(self, history: Sequence[Decision]) -> None:
        """The last decision, as a table of what it changed; nothing if it changed nothing."""
        found = changes(history)
        if self._bar is not None and found:
            self._bar.print(render(history[-1], found, is_terminal=sys.stdout.isatty()))

    def close(self) -> None:
        """Leave the bar alone from now on; safe to call twice."""
        if self._bar is None:
            return
        if self._was_patched:
            self._bar.get_metrics = self._get_metrics
        else:
            del self._bar.get_metrics
        self._bar = None


def short(plan: Plan) -> str:
    """The plan in a few characters: how many units in a row have which level, forward order.

    c cached, f frozen, d detached, L local, R LoRA, F full: what trains is upper case. With more
    than six runs, how many units have each level.

    Example:
        >>> short(Plan({"stem": "cached", "a": "cached", "b": "frozen", "c": "full"}))
        '2c 1f 1F'
    """
    letters = [_LETTERS[level.kind] for level in plan.values()]
    runs = [(letter, len(list(run))) for letter, run in groupby(letters)]
    if len(runs) > _MOST_RUNS:
        runs = [(letter, letters.count(letter)) for letter in _LETTERS.values()]
    return " ".join(f"{count}{letter}" for letter, count in runs if count)


def duration(seconds: float) -> str:
    """A time in the unit that reads best.

    Example:
        >>> duration(42.0), duration(126.0), duration(7200.0)
        ('42 s', '2.1 min', '2.0 h')
    """
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 3600 else f"{seconds / 3600:.1f} h"


def render(decision: Decision, found: Sequence[Change], *, is_terminal: bool) -> str:
    """A table of changes, one row per run of units that changed alike; colours for terminals."""
    title = f"attnbal: step {decision.step}, {decision.why}"
    table = Table(title=Text(title), title_justify="left", box=SIMPLE_HEAD, show_edge=False)
    for name in ("units", "before", "now", "why"):
        table.add_column(name)
    for (before, after), run in groupby(found, key=lambda change: (change.before, change.after)):
        alike = list(run)
        names = [change.unit for change in alike]
        units = names[0] if len(names) == 1 else f"{names[0]} … {names[-1]} ({len(names)})"
        cells = (units, str(before or "–"), str(after or "–"), alike[0].reason)
        table.add_row(*map(Text, cells))
    console = Console(file=io.StringIO(), force_terminal=is_terminal, width=_width(is_terminal))
    console.print(table)
    console.print(Text(decision.plan.method), soft_wrap=True)
    return str(console.file.getvalue()).rstrip()  # type: ignore[attr-defined]  # a StringIO


def _width(is_terminal: bool) -> int:
    return Console().width if is_terminal else _WIDTH
