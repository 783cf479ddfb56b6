"""The picture of the forecasts."""

from __future__ import annotations

import math
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from lightning_attnbal.core import CACHED
from lightning_attnbal.planning._outlook import BudgetOutlook, PlanPoint

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from lightning_attnbal.planning._report import PlanReport

_INK, _FAINT, _GRID = "#333333", "#8A8A8A", "#E8E8E8"
# Okabe and Ito's colour-blind-safe hues, dark and light in turn; the marker tells them apart too
_COLORS = ("#D55E00", "#E69F00", "#009E73", "#0072B2", "#CC79A7", "#56B4E9", "#000000")
_MARKERS = ("o", "s", "D", "^", "v", "P", "X")
_BINS = 12  # intervals of cost, one point of a line each
_NUDGE = 0.8  # percentage points between the error bars of two budgets


def plot_outlook(report: PlanReport, path: str | Path | None = None) -> Figure:
    """Draw where a run is forecast to end against what a step of its plan costs.

    A line per budget joins the best forecasts along the cost, with one standard deviation as error
    bar, set apart a little where budgets meet; small dots are the frontier's other plans. The ring
    is the plan with the lowest forecast; the legend says how many steps of it the budget buys.
    Costs are those once a cache is full; they are the same for all budgets in one unit.

    Args:
        report: what was forecast.
        path: where to save the figure, in the format of its suffix; None does not save.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.

    Source:
        Okabe, Ito, "Color Universal Design", 2008: the palette.

    Example:
        >>> import torch
        >>> from lightning_attnbal.planning import forecast_plans
        >>> report = forecast_plans(torch.nn.Linear(4, 2), torch.ones(2, 4), steps_per_epoch=9,
        ...                         epochs=2, budgets=["50%"])
        >>> plot_outlook(report).axes[0].get_xlabel()
        'cost of a step, % of training everything'
    """
    if find_spec("matplotlib") is None:
        msg = "Plots need matplotlib: pip install 'lightning-attnbal[plot]'."
        raise ModuleNotFoundError(msg, name="matplotlib")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.0, 4.8), layout="constrained")
    ax = figure.subplots()
    for i, outlook in enumerate(report.outlooks):
        shift = _NUDGE * (i - (len(report.outlooks) - 1) / 2)
        _draw(ax, outlook, _COLORS[i % len(_COLORS)], _MARKERS[i % len(_MARKERS)], shift)
    share = math.isnan(report.loss)
    ax.set_xlabel("cost of a step, % of training everything", fontsize=9, color=_INK)
    ax.set_ylabel(
        "forecast at the end, share of the first loss" if share else "forecast loss at the end",
        fontsize=9,
        color=_INK,
    )
    steps = f"{report.epochs} epochs of {report.epoch_steps:,} steps"
    ax.set_title(f"{report.model}, {steps}", loc="left", fontsize=10, color=_INK)
    _finish(ax)
    if path is not None:
        figure.savefig(path, dpi=150)
    return figure


def _draw(ax: Axes, outlook: BudgetOutlook, color: str, marker: str, shift: float) -> None:
    line = _line(outlook)
    others = [p for p in outlook.points if p.is_open and not any(p is q for q in line)]
    ax.plot(*_places(others, shift), ".", color=color, alpha=0.25, markersize=3, zorder=1)
    ax.errorbar(
        *_places(line, shift),
        yerr=[point.error for point in line],
        color=color,
        marker=marker,
        markersize=5,
        linewidth=1.4,
        elinewidth=0.9,
        ecolor=(color, 0.5),
        capsize=2,
        label=_label(outlook),
        zorder=2,
    )
    best = _places([outlook.points[outlook.best]], shift)
    ax.plot(*best, "o", color="none", markeredgecolor=_INK, markersize=13, zorder=3)


def _line(outlook: BudgetOutlook) -> list[PlanPoint]:
    """The best forecast in each of some intervals of cost, and of them all; cheapest first."""
    best = outlook.points[outlook.best]
    kept = {round(_BINS * _share(best)): best}
    for point in sorted(outlook.points, key=lambda p: p.loss):
        if point.is_open:
            kept.setdefault(round(_BINS * _share(point)), point)
    return sorted(kept.values(), key=_share)


def _label(outlook: BudgetOutlook) -> str:
    best = outlook.points[outlook.best]
    steps = f"{best.plan.num_steps or 0:,} steps"
    share = f"{_share(best):.0%}" if _share(best) >= 0.01 else "< 1%"
    return f"budget {outlook.budget}\nlowest: {steps} at {share}"


def _share(point: PlanPoint) -> float:
    """Cost of a step as it would be run, cached or not."""
    return point.share if CACHED in point.plan.values() else point.share_uncached


def _places(points: list[PlanPoint], shift: float) -> tuple[list[float], list[float]]:
    return [100 * _share(p) + shift for p in points], [p.loss for p in points]


def _finish(ax: Axes) -> None:
    from matplotlib.lines import Line2D

    ring = Line2D([], [], linestyle="", marker="o", markersize=10, color="none")
    ring.set_markeredgecolor(_INK)
    ring.set_label("lowest forecast")
    handles = [*ax.get_legend_handles_labels()[0], ring]
    ax.legend(
        handles=handles,
        fontsize=8,
        frameon=False,
        loc="center left",
        bbox_to_anchor=(1, 0.5),
        labelspacing=1.0,
        labelcolor=_INK,
    )
    ax.grid(axis="y", color=_GRID, linewidth=0.8)
    ax.set_axisbelow(True)
    ax.tick_params(colors=_INK, labelsize=8, length=2)
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.spines["bottom"].set_color(_FAINT)
