"""The picture of the plan over time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from lightning_attnbal.core import Level, LevelKind
from lightning_attnbal.tracking._event import Event
from lightning_attnbal.tracking._events import CostSpent
from lightning_attnbal.tracking._recorder import read_events
from lightning_attnbal.tracking._timeline import Timeline, build_timeline

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_INK, _FAINT, _SPENT, _RATE = "#333333", "#8A8A8A", "#0072B2", "#D55E00"
# Okabe and Ito's colour-blind-safe hues for what trains, greys for what rests: dark means dear
_COLORS = {
    LevelKind.CACHED: "#EEEEEE",
    LevelKind.FROZEN: "#C4C9D0",
    LevelKind.DETACHED: "#F0E442",
    LevelKind.LOCAL: "#E69F00",
    LevelKind.LORA: "#56B4E9",
    LevelKind.FULL: "#0072B2",
}
_LORA_COLORS = ("#C4E5F8", "#9FD4F3", "#7BC4EE", "#56B4E9")  # lightest for the lowest rank
_ROW_INCHES, _CURVE_INCHES = 0.24, 2.0


def plot_plan(events: Sequence[Event] | str | Path, path: str | Path | None = None) -> Figure:
    """Draw which unit had which level while the budget was spent, and the account below.

    Upper panel, one per task: units in forward order from the bottom up against budget spent (% of
    the limit), a colour per level, a dotted line where an epoch begins. Lower panel: budget spent,
    what the plans predicted, and the learning rate where recorded, against optimizer steps.

    Args:
        events: the stream, or the file it is in.
        path: where to save the figure, in the format of its suffix; None does not save.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
        ValueError: the stream holds no plan.

    Source:
        Okabe, Ito, "Color Universal Design", 2008: the palette.

    Example:
        >>> from lightning_attnbal.core import Plan
        >>> from lightning_attnbal.tracking import PlanDecided, RunEnded
        >>> plan = Plan({"layer.0": "frozen", "head": "full"})
        >>> figure = plot_plan([
        ...     PlanDecided(plan=plan, spent=0.0, remaining=8.0),
        ...     RunEnded(why="budget spent", spent=8.0, limit=8.0),
        ... ])
        >>> [label.get_text() for label in figure.axes[0].get_yticklabels()]
        ['layer.0', 'head']
    """
    if find_spec("matplotlib") is None:
        msg = "Plots need matplotlib: pip install 'lightning-attnbal[plot]'."
        raise ModuleNotFoundError(msg, name="matplotlib")
    from matplotlib.figure import Figure

    stream = read_events(events) if isinstance(events, str | Path) else events
    timeline = build_timeline(stream)
    costs = [event for event in stream if isinstance(event, CostSpent)]
    heights = [_ROW_INCHES * len(timeline.units(task)) for task in timeline.spans]
    heights += [_CURVE_INCHES] if costs else []
    figure = Figure(figsize=(9.0, sum(heights) + 0.75 * len(heights) + 0.9), layout="constrained")
    axes = figure.subplots(len(heights), squeeze=False, height_ratios=heights)[:, 0]
    for ax, task in zip(axes, timeline.spans, strict=False):
        _draw_plan(ax, timeline, task)
    if costs:
        _draw_costs(axes[-1], costs, timeline)
    _draw_legend(axes[0], timeline)
    title = f"Budget {timeline.budget} · {timeline.spent_text}"
    figure.suptitle(title, color=_INK, fontsize=11)
    if path is not None:
        figure.savefig(path, dpi=150)
    return figure


def _draw_plan(ax: Axes, timeline: Timeline, task: str) -> None:
    units, palette = timeline.units(task), _palette(timeline)
    for span in timeline.spans[task]:
        ax.barh(
            units.index(span.unit),
            100 * (span.end - span.start),
            left=100 * span.start,
            height=0.86,
            color=palette[span.level],
        )
    _draw_epochs(ax, timeline)
    ax.set_xlim(0, 100 * max(1.0, timeline.spent / timeline.limit))
    ax.set_ylim(-0.5, len(units) - 0.5)
    ax.set_yticks(range(len(units)), units, fontsize=8)
    ax.set_xlabel("budget spent (%)", fontsize=9)
    if len(timeline.spans) > 1:
        ax.set_title(f"task {task}", loc="left", fontsize=9)
    _plain(ax)


def _draw_epochs(ax: Axes, timeline: Timeline) -> None:
    """A dotted line where an epoch begins; about ten of them are named."""
    every = math.ceil(len(timeline.epochs) / 10)
    for i, (epoch, share) in enumerate(timeline.epochs):
        ax.axvline(100 * share, color=_INK, linewidth=0.8, linestyle=":")
        if i % every == 0:
            ax.annotate(
                f"epoch {epoch}",
                (100 * share, 1.0),
                xycoords=ax.get_xaxis_transform(),
                xytext=(0, 3),
                textcoords="offset points",
                ha="center",
                fontsize=7,
                color=_FAINT,
            )


def _draw_costs(ax: Axes, costs: Sequence[CostSpent], timeline: Timeline) -> None:
    steps = [event.step for event in costs]
    spent, planned = (
        [100 * value / timeline.limit for value in values]
        for values in ([e.spent for e in costs], [e.planned for e in costs])
    )
    ax.plot(steps, spent, color=_SPENT, linewidth=1.8, label="spent")
    ax.plot(steps, planned, color=_INK, linewidth=1.0, linestyle="--", label="planned")
    ax.axhline(100, color=_FAINT, linewidth=0.8)
    ax.set_xlim(0, max(*steps, 1))
    ax.set_ylim(0, max(108.0, *spent))
    ax.set_xlabel("optimizer step", fontsize=9)
    ax.set_ylabel("budget spent (%)", fontsize=9)
    _plain(ax)
    lines = ax.get_lines()[:2]
    rated = [(e.step, e.learning_rate) for e in costs if e.learning_rate is not None]
    if rated:
        right = ax.twinx()
        lines += right.plot(
            *zip(*rated, strict=True), color=_RATE, linewidth=1.2, label="learning rate"
        )
        right.set_ylim(bottom=0)
        right.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3), useMathText=True)
        right.set_ylabel("learning rate", fontsize=9)
        _plain(right)
    ax.legend(
        handles=lines,
        loc="lower left",
        bbox_to_anchor=(0.0, 1.0),
        ncols=3,
        fontsize=8,
        frameon=False,
    )


def _plain(ax: Axes) -> None:
    ax.tick_params(colors=_INK, labelsize=8, length=2)
    ax.spines[["top", "right", "left", "bottom"]].set_visible(False)


def _draw_legend(ax: Axes, timeline: Timeline) -> None:
    """The levels beside the plan, dearest on top."""
    from matplotlib.patches import Patch

    palette = _palette(timeline)
    handles = [Patch(color=palette[level], label=str(level)) for level in reversed(palette)]
    ax.legend(
        handles=handles, loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=8, frameon=False
    )


def _palette(timeline: Timeline) -> dict[Level, str]:
    """A colour for each level that occurs, cheapest first; LoRA darkens with its rank."""
    present = {span.level for spans in timeline.spans.values() for span in spans}
    kinds = list(LevelKind)
    ordered = sorted(present, key=lambda level: (kinds.index(level.kind), level.rank))
    ranks = [level.rank for level in ordered if level.kind is LevelKind.LORA]
    shades = {rank: _shade(i, len(ranks)) for i, rank in enumerate(ranks)}
    return {level: shades.get(level.rank, _COLORS[level.kind]) for level in ordered}


def _shade(index: int, num_ranks: int) -> str:
    """The colour of the LoRA rank at `index` of `num_ranks`, spread over the shades."""
    last = len(_LORA_COLORS) - 1
    return _LORA_COLORS[last if num_ranks == 1 else round(index * last / (num_ranks - 1))]
