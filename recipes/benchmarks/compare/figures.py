"""Quality against cost, every arm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_STYLES = ("-", "--", ":", "-.")
_MARKERS = "os^vDPX*<>ph8d"


def plot_quality(
    task: str, metric: str, points: Mapping[str, Sequence[tuple[float, float, float]]], path: Path
) -> None:
    """One line per arm: its metric against the share of the full run's cost, with intervals.

    Args:
        task: for the title.
        metric: for the axis.
        points: by arm (cost share, mean in percent, half of the interval).
        path: PNG file to write.
    """
    figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
    for k, (arm, line) in enumerate(points.items()):
        costs, means, halves = zip(*line, strict=True)
        is_ours = arm == "ours"
        axes.errorbar(
            costs,
            means,
            yerr=halves if is_ours else None,
            label=arm,
            color=_COLOURS[k % len(_COLOURS)],
            linestyle=_STYLES[k // len(_COLOURS) % len(_STYLES)],
            marker=_MARKERS[k % len(_MARKERS)],
            markersize=5,
            linewidth=2.5 if is_ours else 1.2,
            zorder=3 if is_ours else 2,
            capsize=3,
        )
    ticks = sorted({cost for line in points.values() for cost, _, _ in line})
    axes.set_xscale("log")
    axes.set_xticks(ticks, [f"{100 * cost:.3g} %" for cost in ticks])
    axes.minorticks_off()
    axes.set_xlabel("share of the full run's FLOPs")
    axes.set_ylabel(f"test {metric}, %")
    axes.set_title(f"{task}: quality against cost")
    axes.grid(alpha=0.3)
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, metadata={"Software": None})
    plt.close(figure)


def plot_regret(points: Mapping[str, Sequence[tuple[float, float, float]]], path: Path) -> None:
    """Ours less the best static plan in hindsight against the share of the full run's cost.

    Args:
        points: by task (cost share, mean difference in points, half of the interval).
        path: PNG file to write.
    """
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    for k, (task, line) in enumerate(points.items()):
        costs, means, halves = zip(*line, strict=True)
        look = {"color": _COLOURS[k % len(_COLOURS)], "marker": _MARKERS[k % len(_MARKERS)]}
        axes.errorbar(costs, means, yerr=halves, label=task, capsize=3, linewidth=2, **look)
    axes.axhline(0, color="black", linewidth=1)
    ticks = sorted({cost for line in points.values() for cost, _, _ in line})
    axes.set_xscale("log")
    axes.set_xticks(ticks, [f"{100 * cost:.3g} %" for cost in ticks])
    axes.minorticks_off()
    axes.set_xlabel("share of the full run's FLOPs")
    axes.set_ylabel("points")
    axes.set_title("Ours less the best static plan in hindsight")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, metadata={"Software": None})
    plt.close(figure)
