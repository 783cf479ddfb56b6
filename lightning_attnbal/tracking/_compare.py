"""Runs side by side: what each cost, what it reached, and how it differs from the first."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console, ConsoleOptions, RenderableType
from rich.table import Table
from rich.text import Text

from lightning_attnbal.core import Dimension, Quantity
from lightning_attnbal.tracking._event import Event
from lightning_attnbal.tracking._outcome import RunOutcome

_MOST_SCORES = 4  # columns that find room in 80 characters
_NONE = "–"
_TEXTS, _NUMBERS = {"run", "budget"}, {"spent", "saved", "time", "steps"}


@dataclass(frozen=True, slots=True)
class Comparison:
    """Several runs, sorted, and what stands in the way of comparing them.

    Args:
        runs: by cost, cheapest first, or by `metric`, highest first; unknown figures last.
        base: name of the run that differences are to.
        metrics: the scores to show.
        notes: why figures of some runs cannot be compared, as sentences.
    """

    runs: tuple[RunOutcome, ...]
    base: str
    metrics: tuple[str, ...]
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain data that JSON can hold: every figure of every run, and the differences."""
        base = self._base
        return {
            "base": self.base,
            "runs": [{**r.to_dict(), "difference": _differences(r, base)} for r in self.runs],
            "notes": list(self.notes),
        }

    def cost_table(self, *, plain: bool = False) -> Table:
        """Budget, cost and length of each run; below each figure its difference in percent."""
        table = _table("run", "budget", "spent", "saved", "time", "steps", plain=plain)
        for run in self.runs:
            table.add_row(
                _text(run.name),
                _text(run.budget.removesuffix(" of the full run") or _NONE),
                self._cell(run, "spent", partial(_amount, dimension=run.dimension)),
                _percent(run.saved),
                self._cell(run, "seconds", partial(_amount, dimension=Dimension.SECOND)),
                self._cell(run, "steps", "{:,.0f}".format),
            )
        return table

    def result_table(self, *, plain: bool = False) -> Table:
        """Forecast and scores of each run; below each figure its difference."""
        shown = tuple(islice(self.metrics, _MOST_SCORES))
        table = _table("run", "forecast loss", *map(_printable, shown), plain=plain)
        base = self._base
        for run in self.runs:
            forecast = _number(run.forecast)
            if not math.isnan(run.forecast_error):
                forecast += f" ± {run.forecast_error:.2g}"
            scores = (
                _with(_number(value), _signed(value - base.scores.get(metric, math.nan)))
                for metric in shown
                for value in (run.scores.get(metric, math.nan),)
            )
            below = _signed(run.forecast - base.forecast)
            table.add_row(_text(run.name), _with(forecast, below), *scores)
        return table

    @property
    def _base(self) -> RunOutcome:
        return next(run for run in self.runs if run.name == self.base)

    def _cell(self, run: RunOutcome, figure: str, show: Callable[[float], str]) -> Text:
        value = float(getattr(run, figure))
        if math.isnan(value):
            return Text(_NONE)
        difference = _differences(run, self._base)[figure]
        return _with(show(value), "" if difference is None else f"{difference:+.1%}")

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> Iterator[RenderableType]:
        has_results = self.metrics or any(not math.isnan(run.forecast) for run in self.runs)
        plain = not options.is_terminal
        yield self.cost_table(plain=plain)
        yield Text()
        if has_results:
            yield self.result_table(plain=plain)
            yield Text()
        if len(self.runs) > 1:
            yield _text(f"Differences are to {self.base}, the first run named.")
        if len(self.metrics) > _MOST_SCORES:
            more = ", ".join(self.metrics[_MOST_SCORES:])
            yield _text(f"Not shown: {more}. Ask for one by name.")
        yield from map(_text, self.notes)


def compare_runs(runs: Mapping[str, Sequence[Event]], metric: str | None = None) -> Comparison:
    """Put runs side by side; differences are to the first.

    Args:
        runs: name → event stream, of one run or more.
        metric: show and sort by this score only; None shows all and sorts by cost.

    Raises:
        ValueError: there is no run, one holds no event, or none has the metric.

    Example:
        >>> from lightning_attnbal.tracking import RunEnded
        >>> found = compare_runs({
        ...     "full": [RunEnded(step=9, why="no steps left", spent=8.0, limit=8.0)],
        ...     "half": [RunEnded(step=7, why="budget spent", spent=4.0, limit=4.0)],
        ... })
        >>> [(run.name, run.spent) for run in found.runs], found.base
        ([('half', 4.0), ('full', 8.0)], 'full')
    """
    if not runs:
        msg = "Expected `runs` to hold a run, but got none."
        raise ValueError(msg)
    outcomes = [RunOutcome.of(name, events) for name, events in runs.items()]
    known = tuple(dict.fromkeys(metric for run in outcomes for metric in run.scores))
    if metric is not None and metric not in known:
        msg = f"Expected `metric` to be one of {', '.join(known) or 'none'}, but got {metric!r}."
        raise ValueError(msg)
    notes = tuple(_obstacles(outcomes))
    is_priced = len({run.dimension for run in outcomes}) == 1

    def key(run: RunOutcome) -> tuple[bool, float]:
        cost = run.spent if is_priced else run.seconds
        value = cost if metric is None else -run.scores.get(metric, math.nan)
        return math.isnan(value), value

    metrics = known if metric is None else (metric,)
    return Comparison(tuple(sorted(outcomes, key=key)), outcomes[0].name, metrics, notes)


def _obstacles(runs: Sequence[RunOutcome]) -> Iterator[str]:
    """What makes figures of a run and of the first incomparable, as sentences."""
    base = runs[0]
    for run in runs[1:]:
        if run.dimension is not base.dimension:
            yield (
                f"Not comparable: the budget of {run.name} counts {_counted(run)}, that of "
                f"{base.name} {_counted(base)}."
            )
        if run.units != base.units:
            yield (
                f"Not comparable: {run.name} has {len(run.units)} units with "
                f"{sum(run.units.values()):,} parameters, {base.name} {len(base.units)} with "
                f"{sum(base.units.values()):,}; it is another model."
            )
        if run.host != base.host:
            where = f"{run.host or 'unknown'} and {base.host or 'unknown'}"
            yield f"Times are not comparable: {run.name} and {base.name} ran on {where}."
    for run in runs:
        if not run.ended:
            yield f"{run.name} has not ended, or was killed: its figures are those so far."


def _counted(run: RunOutcome) -> str:
    return "an unknown unit" if run.dimension is None else run.dimension.name.lower() + "s"


def _differences(run: RunOutcome, base: RunOutcome) -> dict[str, Any]:
    """To the base: shares of its figures, and score minus score; None where one is unknown."""
    is_priced = run.dimension is base.dimension
    found: dict[str, Any] = {
        "spent": _share(run.spent, base.spent) if is_priced else None,
        "seconds": _share(run.seconds, base.seconds),
        "steps": _share(run.steps, base.steps),
        "forecast": _finite(run.forecast - base.forecast),
    }
    both = (metric for metric in run.scores if metric in base.scores)
    return {**found, "scores": {m: _finite(run.scores[m] - base.scores[m]) for m in both}}


def _share(value: float, base: float) -> float | None:
    return _finite(value / base - 1) if base > 0 else None


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _table(*columns: str, plain: bool) -> Table:
    """Columns of text left, of numbers right; without lines if it is `plain`."""
    box = None if plain else SIMPLE_HEAD
    table = Table(box=box, show_edge=False, pad_edge=False, collapse_padding=not plain)
    for name in columns:
        justify: Any = "left" if name in _TEXTS else "right"
        table.add_column(Text(name), justify=justify, overflow="fold", no_wrap=name in _NUMBERS)
    return table


def _with(value: str, difference: str) -> Text:
    """A cell with the difference on a line of its own; no difference, no line."""
    is_same = not difference.strip("+-−0.%")
    return Text(value) if is_same else Text.assemble(value, "\n", (difference, "dim"))


def _amount(value: float, dimension: Dimension | None) -> str:
    return _number(value) if dimension is None else str(Quantity(value, dimension))


def _number(value: float) -> str:
    return _NONE if math.isnan(value) else f"{value:.4g}"


def _percent(value: float) -> str:
    return _NONE if math.isnan(value) else f"{value:.1%}"


def _signed(value: float) -> str:
    return f"{value:+.3g}" if math.isfinite(value) else ""


def _text(text: str) -> Text:
    return Text(_printable(text))


def _printable(text: str) -> str:
    """Names come from files: nothing in them may steer the terminal."""
    return "".join(
        letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text
    )
