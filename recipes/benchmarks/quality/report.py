"""Writes tables and figures into the recipes' pages: `python -m recipes.benchmarks.quality.report`.

No figure is typed by hand.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import mean
from typing import Any

import matplotlib.pyplot as plt

from lightning_attnbal.tracking import read_events
from lightning_attnbal.tracking.charts import draw, to_png
from recipes.benchmarks.compare.report import interval, signed
from recipes.benchmarks.quality.plan import FOLDER, MEASURED, RECIPE, launches

ROOT = Path(__file__).resolve().parents[2]
PAGES = {"image": "vision"}
SEEDS = tuple(range(10))
BEGIN, END = "<!-- measured: {} -->", "<!-- end of measured: {} -->"

_NO_SHARES = ("bleu", "chrf")
"""Metrics that come in percent."""

Run = dict[str, Any]
Score = Callable[[Run], float]


def judged(run: Run) -> dict[str, float]:
    """Task → value of its headline metric, in percent where it is a share."""
    return {
        task: run["scores"][f"{task}/{metric}"] * (1 if metric in _NO_SHARES else 100)
        for task, metric in run["headline"].items()
    }


def load(name: str) -> dict[tuple[str, str], dict[int, Run]]:
    """Finished runs: (kind, budget) → seed → run."""
    found: dict[tuple[str, str], dict[int, Run]] = {}
    kinds = ("full", "short", "balanced", "single_full", "single_short", "single_balanced")
    for launch in launches(name, kinds, SEEDS):
        run = launch.result()
        if run is not None:
            found.setdefault((launch.kind, launch.budget), {})[launch.seed] = run
    return found


def section(name: str) -> str:
    """Tables of one name: several tasks, then one task."""
    table = load(name)
    lines: list[str] = []
    for prefix, title in (("", "Several tasks"), ("single_", "One task")):
        rows = [(kind, runs) for kind, runs in table.items() if _is_of(kind[0], prefix)]
        if rows:
            lines += [f"{title}:", "", *_rows(table, rows, prefix), ""]
    full = table.get(("full", "100%"), {}).get(0)
    if full and full["baselines"]:
        lines += ["Baselines:", "", *_baselines(full), ""]
    if lines:
        lines += [_facts(table), ""]
    return "\n".join(lines)


def _is_of(kind: str, prefix: str) -> bool:
    return kind.startswith("single_") == bool(prefix)


def _rows(table: Any, rows: Iterable[Any], prefix: str) -> list[str]:
    rows = list(rows)
    first = next(iter(rows[0][1].values()))
    tasks = list(first["headline"].items())
    several = len(tasks) > 1
    heads = [f"{task} {metric}" for task, metric in tasks]
    heads += ["mean", "worst", "ours less it, mean", "worst"] if several else ["ours less it"]
    lines = ["| run | budget | CPU min | " + " | ".join(heads) + " |"]
    lines.append("|---|---|---" + "|---" * len(heads) + "|")
    for (kind, budget), runs in rows:
        ours = table.get((f"{prefix}balanced", budget), {})
        scores: list[Score] = [lambda run, t=task: judged(run)[t] for task, _ in tasks]  # type: ignore[misc]
        cells = [_cell(runs, score) for score in scores]
        both: list[Score] = [_mean, _worst] if several else [_mean]
        cells += [_cell(runs, score) for score in both] if several else []
        is_ours = kind == f"{prefix}balanced"
        cells += ["" if is_ours else _less(ours, runs, score) for score in both]
        minutes = mean(run["cpu_seconds"] for run in runs.values()) / 60
        label = (
            kind.removeprefix(prefix).replace("balanced", "ours").replace("short", "fewer steps")
        )
        lines.append(f"| {label} | {budget} | {minutes:.1f} | " + " | ".join(cells) + " |")
    return lines


def _mean(run: Run) -> float:
    return mean(judged(run).values())


def _worst(run: Run) -> float:
    return min(judged(run).values())


def _cell(runs: dict[int, Run], score: Score) -> str:
    value, half = interval([score(run) for run in runs.values()])
    return f"{value:.4g} ± {half:.2g} ({len(runs)})" if len(runs) > 1 else f"{value:.4g}"


def _less(ours: dict[int, Run], other: dict[int, Run], score: Score) -> str:
    seeds = sorted(set(ours) & set(other))
    if len(seeds) < 2:
        return ""
    return signed(*interval([score(ours[s]) - score(other[s]) for s in seeds]))


def _baselines(run: Run) -> list[str]:
    rows = {**run["baselines"], "full training, for comparison": run["scores"]}
    known = {key for scores in run["baselines"].values() for key in scores}
    tasks = list(run["headline"])
    metrics = sorted({key.rpartition("/")[2] for key in known})
    lines = ["| | task | " + " | ".join(metrics) + " |", "|---|---" + "|---" * len(metrics) + "|"]
    for name, scores in rows.items():
        for task in tasks:
            keys = [f"{task}/{metric}" for metric in metrics]
            cells = [f"{scores[k]:.4g}" if k in scores and k in known else "" for k in keys]
            if any(cells):
                lines.append(f"| {name} | {task} | " + " | ".join(cells) + " |")
    return lines


def _facts(table: Any) -> str:
    runs = [run for of_kind in table.values() for run in of_kind.values()]
    machine = "{cpu}, torch {torch}".format(**runs[0]["machine"])
    return (
        "Mean over seeds ± half of the 95 % interval (number of seeds); differences are over "
        "paired seeds, **bold** where the interval leaves out 0. Shares are in percent. The peak "
        "learning rate is the recipe's; the balancer multiplies it where fewer layers train "
        "(`lr_scaling`). CPU minutes hold loading, "
        f"calibration, validation and test too. One core of {machine}."
    )


def draw_quality(name: str, path: Path) -> None:
    """Mean headline metric against the share of the full run's FLOPs, ours and fewer steps."""
    table = load(name)
    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    for kind, label, colour in (
        ("balanced", "ours", "#0072B2"),
        ("short", "fewer steps", "#D55E00"),
    ):
        budgets = ["25%", "50%"] + (["100%"] if kind == "short" else [])
        points = [
            (int(b[:-1]), *interval([_mean(r) for r in runs.values()]))
            for b in budgets
            if (runs := table.get((kind if b != "100%" else "full", b), {}))
        ]
        if points:
            x, y, half = zip(*points, strict=True)
            axes.errorbar(x, y, yerr=half, label=label, color=colour, marker="o", capsize=3)
    axes.set_xlabel("share of the full run's FLOPs, %")
    axes.set_ylabel("headline metric, mean over tasks")
    axes.set_title(name)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, metadata={"Software": None})
    plt.close(figure)


def page_of(name: str) -> Path:
    """The recipe's own page."""
    recipe = RECIPE.get(name, name)
    return ROOT / PAGES.get(recipe, recipe) / "README.md"


def with_section(text: str, name: str) -> str:
    """The page with the tables between their marks."""
    begin, end = BEGIN.format(name), END.format(name)
    block = f"{begin}\n{section(name)}{end}"
    pattern = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
    return pattern.sub(lambda _: block, text)


def main() -> None:
    """Write the tables and draw the figures."""
    for name in MEASURED:
        page = page_of(name)
        page.write_text(with_section(page.read_text(encoding="utf-8"), name), encoding="utf-8")
        if load(name):
            figures = page.parent / "figures"
            draw_quality(name, figures / f"{name}_quality.png")
            events = FOLDER / name / "balanced-25.jsonl"
            if events.exists():
                chart = draw(read_events(events))["plan"]
                (figures / f"{name}_compute.png").write_bytes(to_png(chart))


if __name__ == "__main__":
    main()
