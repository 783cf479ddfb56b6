"""Writes the figures of `results/*.json` into the README: `python -m recipes.benchmarks.report`.

No figure in the README is typed by hand; a test compares it with what this script writes.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from scipy import stats

from recipes.benchmarks._common import RESULTS
from recipes.benchmarks.budget_adherence import figure

README = Path(__file__).parents[2] / "README.md"
BEGIN, END = "<!-- MEASURED:BEGIN", "<!-- MEASURED:END -->"

Row = tuple[str, str]


def spread(values: Sequence[float], digits: int = 3) -> str:
    """Median and range."""
    low, mid, high = min(values), statistics.median(values), max(values)
    return f"{mid:.{digits}f} ({low:.{digits}f} – {high:.{digits}f})"


def adherence(record: dict[str, Any]) -> list[Row]:
    """Spent over budget, per budget."""
    return [
        (
            f"spent / budget, {name}",
            f"{spread([figure(name, r) for r in runs], 4)}, {len(runs)} runs",
        )
        for name, runs in record["runs"].items()
    ]


def overhead(record: dict[str, Any]) -> list[Row]:
    """Step time with the callback at 100 % over plain Lightning."""
    quartiles = f"{record['quartile_low']:.3f} – {record['quartile_high']:.3f} quartiles"
    name = "step time at a budget of 100 % / plain Lightning"
    return [(name, f"{record['ratio']:.3f} ({quartiles}), {record['pairs']} pairs of steps")]


def flop_count(record: dict[str, Any]) -> list[Row]:
    """Counted against real FLOPs."""
    worst = {r["family"]: max(map(abs, r["errors"].values())) for r in record["results"]}
    plans = sum(len(r["errors"]) for r in record["results"])
    family = max(worst, key=lambda name: worst[name])
    name = f"FLOPs of a plan / torch's count of the same step, {len(worst)} families, {plans} plans"
    return [(name, f"worst error {worst[family]:.2%} ({family})")]


def step_time(record: dict[str, Any]) -> list[Row]:
    """Predicted against measured seconds per step."""
    return [
        (
            f"predicted / measured seconds of a step, {r['family']}, {r['num_plans']} random plans",
            f"error median {r['errors']['calibrated']['median']:.1%}, "
            f"90 % {r['errors']['calibrated']['p90']:.1%}, "
            f"worst {r['errors']['calibrated']['max']:.1%}",
        )
        for r in record["results"]
    ]


def freeze_wall_time(record: dict[str, Any]) -> list[Row]:
    """Wall time relative to a full step."""
    return [
        (
            f"wall time / full step, 12 {model} blocks, {arm}",
            f"{r['relative']:.3f} ({r['quartile_low']:.3f} – {r['quartile_high']:.3f} quartiles)",
        )
        for model, arms in record["results"].items()
        for arm, r in arms.items()
        if arm != "full"
    ]


def cached_wall_time(record: dict[str, Any]) -> list[Row]:
    """Wall time of a step with a cached prefix, once it is filled."""
    return [
        (
            f"wall time / full step, {model}, {name}",
            f"{r['relative']:.3f} ({r['quartile_low']:.3f} – {r['quartile_high']:.3f} quartiles), "
            f"{r['wall_over_flops']:.2f} × its share of the FLOPs",
        )
        for model, arms in record["results"].items()
        for name, r in arms.items()
        if r["hit_rate"] > 0
    ]


def activation_store(record: dict[str, Any]) -> list[Row]:
    """Reading and writing of cached rows, and what they take."""
    rows = [
        (f"cache, rows of 64 × 384, {r['what']}", f"{r['gigabytes_per_second']:.2f} GB/s")
        for r in record["speeds"]
        if "into torch.float32" in r["what"] or "pause" in r["what"]
    ]
    sizes = [r for r in record["sizes"] if r["limit"] is None]
    return rows + [
        (f"cache, memory of {r['what']}", f"{r['resident'] / 1e9:.3f} GB resident") for r in sizes
    ]


def joint_speed(record: dict[str, Any]) -> list[Row]:
    """CPU time and gap of the joint allocation of shares and plans."""
    return [(f"joint {what}", figures) for what, figures in allocator_speed(record)]


def allocator_speed(record: dict[str, Any]) -> list[Row]:
    """CPU time and gap of the solvers."""
    return [
        (
            f"allocator: {r['name']}",
            f"{r['median_ms']:.1f} ms ({r['min_ms']:.1f} – {r['max_ms']:.1f}), "
            f"gap at most {r['worst_gap']:.2%}",
        )
        for r in record["rows"]
    ]


def quickstart(record: dict[str, Any]) -> list[Row]:
    """Quality of the balanced run, and of training everything for fewer steps."""
    given = dict(option.split("=", 1) for option in record["overrides"])
    budget = given.get("budget", "40%")
    budgets = {"balanced": budget, "full": given.get("control_budget", budget)}
    arms: dict[str, list[dict[str, Any]]] = {}
    for outcome in (o for seed in record["seeds"].values() for o in seed):
        arms.setdefault(outcome["name"], []).append(outcome)
    rows = [
        (
            f"quickstart, {budgets[name]} of full training, {name}",
            f"accuracy {spread([o['accuracy'] for o in runs])}, "
            f"macro-F1 {spread([o['macro_f1'] for o in runs])}, "
            f"{spread([o['seconds'] for o in runs], 0)} s, seeds: {len(runs)}",
        )
        for name, runs in arms.items()
    ]
    if len(record["seeds"]) > 1:
        measures = {"accuracy": "accuracy", "macro_f1": "macro-F1"}
        text = ", ".join(f"{name} {paired(arms, key)}" for key, name in measures.items())
        rows.append(("quickstart, balanced - full, mean over paired seeds (95 % interval)", text))
    return rows


def quickstart_ratings(record: dict[str, Any]) -> list[Row]:
    """The same with stars as what is to be learnt."""
    rows = quickstart(record)
    return [(name.replace("quickstart", "quickstart on ratings", 1), text) for name, text in rows]


def paired(arms: Mapping[str, Sequence[Mapping[str, float]]], key: str) -> str:
    """Mean difference between the two arms and its 95 % interval by Student's t."""
    pairs = zip(arms["balanced"], arms["full"], strict=True)
    differences = [first[key] - second[key] for first, second in pairs]
    mean, num = statistics.mean(differences), len(differences)
    half = float(stats.t.ppf(0.975, num - 1)) * statistics.stdev(differences) / num**0.5
    return f"{mean:+.3f} ({mean - half:+.3f} – {mean + half:+.3f})"


SECTIONS: tuple[Callable[[dict[str, Any]], list[Row]], ...] = (
    quickstart,
    quickstart_ratings,
    adherence,
    overhead,
    flop_count,
    step_time,
    freeze_wall_time,
    cached_wall_time,
    activation_store,
    allocator_speed,
    joint_speed,
)
FILES = {"adherence": "budget_adherence"}


def section() -> str:
    """The README's table, between its markers."""
    lines = [f"{BEGIN} written by `python -m recipes.benchmarks.report`, not by hand -->"]
    rows: list[Row] = []
    machines = set()
    for make in SECTIONS:
        path = RESULTS / f"{FILES.get(make.__name__, make.__name__)}.json"
        if path.exists():
            record = json.loads(path.read_text(encoding="utf-8"))
            rows += make(record)
            m = record["machine"]
            machines.add(
                f"{m['cpu']}, {m['cores']} cores, Python {m['python']}, torch {m['torch']}"
            )
    lines += ["Median and range. " + "; ".join(sorted(machines)) + ".", ""]
    lines += ["| what | measured |", "|---|---|", *(f"| {a} | {b} |" for a, b in rows), END]
    return "\n".join(lines)


def updated(text: str) -> str:
    """The README with its figures renewed."""
    head, rest = text.split(BEGIN, 1)
    return head + section() + rest.split(END, 1)[1]


def main() -> None:
    """Renew the README in place."""
    README.write_text(updated(README.read_text(encoding="utf-8")), encoding="utf-8")
    print(section())


if __name__ == "__main__":
    main()
