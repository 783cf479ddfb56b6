"""What was forecast, as tables for people and as plain data for programs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.console import Console, ConsoleOptions, RenderableType
from rich.table import Table
from rich.text import Text

from lightning_attnbal.core import CACHED, Dimension, Quantity
from lightning_attnbal.planning._outlook import BudgetOutlook, PlanPoint

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FIRST, BEST = "▶", "★"
_NARROW = 100  # columns of a terminal below which two of the table are left out
_WIDE_ONLY = ("uncached", "epochs")


@dataclass(frozen=True, slots=True)
class PlanReport:
    """For each budget the frontier, the forecasts, the first plan, and a verdict.

    Args:
        model: class of the model.
        epoch_steps: optimizer steps per epoch of the full run.
        epochs: of the full run.
        values: unit name → contribution, for units that may train; forward order.
        source: where those come from, as a sentence.
        loss: before training, NaN if there is none: forecasts are then shares of it.
        fresh: names of units that were never trained; plans that freeze one are not chosen.
        outlooks: one per budget.
        shows_all: whether tables have every point of the frontier, not one per depth.

    Example:
        >>> from torch import nn
        >>> import torch
        >>> from lightning_attnbal.planning import forecast_plans
        >>> report = forecast_plans(nn.Linear(4, 2), torch.ones(2, 4), steps_per_epoch=9, epochs=2,
        ...                         budgets=["50%"])
        >>> report.source
        'equal for all units: the forward pass gave a tensor of shape (1, 2), no loss'
        >>> report.outlooks[0].points[-1].share
        1.0
    """

    model: str
    epoch_steps: int
    epochs: int
    values: Mapping[str, float]
    source: str
    loss: float
    fresh: tuple[str, ...]
    outlooks: tuple[BudgetOutlook, ...]
    shows_all: bool = False

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader should know, as sentences."""
        found = [f"Contributions are {self.source}."]
        if math.isnan(self.loss):
            found.append("Forecasts are shares of the first loss, which is not known.")
        else:
            found.append(f"The loss before training is {self.loss:.3g}.")
        if len(self.fresh) > len(self.values) / 2:
            found.append(
                f"{len(self.fresh)} of {len(self.values)} units look as if nobody had trained "
                "them: a run from scratch, in which nothing is frozen. Say so if the run will "
                "start from trained weights."
            )
        elif self.fresh:
            found.append(f"Never trained before, so never frozen: {', '.join(self.fresh)}.")
        if any(CACHED in p.plan.values() for o in self.outlooks for p in o.points):
            found.append("Whether a prefix can be cached is only found out in the run.")
        if any(o.limit.dimension is Dimension.SECOND for o in self.outlooks):
            found.append("Seconds are those of the units, without loading data or validation.")
        found.append("Before a run the forecast is a prior, ± one standard deviation.")
        return tuple(found)

    def table(self, outlook: BudgetOutlook, *, plain: bool = False, narrow: bool = False) -> Table:
        """One row per plan.

        Args:
            outlook: one of `outlooks`.
            plain: without lines, for files and pipes.
            narrow: without epochs and the cost while a cache fills, for 80 columns.
        """
        loss = "share of loss" if math.isnan(self.loss) else "loss"
        box = None if plain else SIMPLE_HEAD
        table = Table(box=box, show_edge=False, pad_edge=False, collapse_padding=not plain)
        table.add_column("")
        table.add_column("plan", overflow="fold")
        names = ("per step", "of full", "uncached", "steps", "epochs", f"forecast\n{loss}")
        shown = [i for i, name in enumerate(names) if not (narrow and name in _WIDE_ONLY)]
        for i in shown:
            table.add_column(names[i], justify="right", no_wrap=True)
        for point in outlook.points if self.shows_all else outlook.by_depth():
            is_best = point is outlook.points[outlook.best]
            mark = FIRST * outlook.is_first(point) + BEST * is_best
            style = "bold" if mark else "" if point.is_open else "dim"
            plan, *cells = _cells(point, outlook.limit.dimension)
            table.add_row(mark, plan, *(cells[i] for i in shown), style=style)
        return table

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> Iterator[RenderableType]:
        plain, narrow = not options.is_terminal, options.max_width < _NARROW
        yield Text(f"{self.model}: {self.epochs} epochs of {self.epoch_steps:,} steps")
        for outlook in self.outlooks:
            yield Text()
            yield Text(_title(outlook), style="" if plain else "bold")
            yield self.table(outlook, plain=plain, narrow=narrow)
            yield Text()
            for line in _lines(outlook):
                yield Text(line)
        yield Text()
        yield Text(f"{FIRST} begins, after calibration   {BEST} lowest forecast")
        for note in self.notes:
            yield Text(note, style="" if plain else "dim")
        if narrow:
            note = (
                f"Epochs, and costs while a cache fills: from {_NARROW} columns on, or with JSON."
            )
            yield Text(note, style="dim")

    def plot(self, path: str | Path | None = None) -> Figure:
        """Forecast against cost, a line per budget; see `plot_outlook`."""
        from lightning_attnbal.planning._plot import plot_outlook

        return plot_outlook(self, path)

    def to_dict(self) -> dict[str, Any]:
        """Plain data that JSON can hold, every point of the frontier included."""
        return {
            "model": self.model,
            "steps_per_epoch": self.epoch_steps,
            "epochs": self.epochs,
            "contributions": dict(self.values),
            "contributions_are": self.source,
            "loss": None if math.isnan(self.loss) else self.loss,
            "fresh": list(self.fresh),
            "budgets": [outlook.to_dict() for outlook in self.outlooks],
            "notes": list(self.notes),
        }


def _title(outlook: BudgetOutlook) -> str:
    steps = outlook.limit.amount / outlook.full_step
    amount = "" if str(outlook.limit) in outlook.budget else f" = {outlook.limit}"
    worth = f"worth {steps:,.0f} full steps of the run's {outlook.full_steps:,}"
    return f"Budget {outlook.budget}{amount}, {worth}"


def _cells(point: PlanPoint, dimension: Dimension) -> list[str]:
    plan = point.plan
    is_cached = CACHED in plan.values()
    return [
        str(plan),
        str(Quantity(plan.cost_per_step, dimension)),
        _percent(point.share if is_cached else point.share_uncached),
        _percent(point.share_uncached) if is_cached else "–",
        f"{plan.num_steps or 0:,}",
        f"{point.epochs:.2g}",
        f"{point.loss:.4g} ± {point.error:.2g}",
    ]


def _percent(share: float) -> str:
    return f"{share:.0%}" if share >= 0.01 else "< 1%"


def _lines(outlook: BudgetOutlook) -> Iterator[str]:
    begin, steps = outlook.begin, outlook.calibration_steps
    yield outlook.verdict
    if not outlook.is_whole:
        until = f"for {begin.num_steps:,} steps" if begin.num_steps is not None else "to the end"
        first = f"{steps} full step{'s' * (steps > 1)} of calibration"
        yield f"Begins with {first}, then {until}: {begin}"
        if outlook.points[outlook.best].plan.trained != begin.trained:
            yield f"Why: {begin.method.removeprefix('forecast: ')}"
