"""Writes `RESULTS.md` and its figures from what was run: `python -m ...compare.report`.

No figure is typed by hand.
"""

from __future__ import annotations

import json
import math
import statistics
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

from scipy import stats

from recipes.benchmarks.compare.arms import ARMS
from recipes.benchmarks.compare.figures import plot_quality, plot_regret
from recipes.benchmarks.compare.job import FOLDER, Job
from recipes.benchmarks.compare.tasks import TASKS
from recipes.benchmarks.compare.tuning import tuned_rate

HERE = Path(__file__).parent
OURS, FULL = "ours", "full"
STATIC = (FULL, "last-")
REGRET = "regret.png"
_HANDED_BACK = 0.02  # of the budget; what is left of less is the step that no longer fitted

Run = Mapping[str, Any]
Runs = Mapping[int, Run]  # by seed
Table = Mapping[tuple[str, str], Runs]  # by arm and budget


def load(task: str) -> Table:
    """Finished runs of a task, those with other settings left out."""
    found: dict[tuple[str, str], dict[int, dict[str, Any]]] = defaultdict(dict)
    for path in sorted((FOLDER / task / "test").glob("*.json")):
        run = json.loads(path.read_text(encoding="utf-8"))
        job = Job(**{name: run[name] for name in Job.__dataclass_fields__})
        is_current = job.arm in ARMS and job.path == path
        if is_current and job.lr == tuned_rate(task, job.arm, job.budget):
            found[job.arm, job.budget][job.seed] = run
    return found


def score(run: Run) -> float:
    """The task's metric on the test rows, in percent."""
    metric = TASKS[run["task"]].metric
    return float(run["scores"][metric]) * (1 if metric == "chrf" else 100)


def name_of(task: str) -> str:
    """The metric in words."""
    return {"accuracy": "accuracy", "macro_f1": "macro-F1", "chrf": "chrF"}[TASKS[task].metric]


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean and half of its 95 % interval by Student's t; inf for one value.

    Example:
        >>> mean, half = interval([1.0, 3.0])
        >>> mean, round(half, 1)
        (2.0, 12.7)
    """
    mean, num = statistics.mean(values), len(values)
    if num < 2:
        return mean, math.inf
    return mean, float(stats.t.ppf(0.975, num - 1)) * statistics.stdev(values) / math.sqrt(num)


def paired(first: Runs, second: Runs) -> tuple[float, float, int] | None:
    """Mean difference over the seeds that both have, half its interval, number of seeds."""
    seeds = sorted(set(first) & set(second))
    if not seeds:
        return None
    differences = [score(first[s]) - score(second[s]) for s in seeds]
    return (*interval(differences), len(seeds))


def section(task: str, table: Table) -> list[str]:
    """Everything about one task."""
    budgets = sorted({budget for _, budget in table}, key=Fraction)
    arms = sorted({arm for arm, _ in table}, key=list(ARMS).index)
    full_run = TASKS[task]
    lines = [
        f"## {task}",
        "",
        f"{(type(full_run).__doc__ or '').splitlines()[0]} The full run is {full_run.epochs} "
        f"epochs; test {name_of(task)} in percent, mean ± half of the 95 % interval over seeds.",
        "",
        f"![Quality against cost](figures/{task}.png)",
        "",
        "| arm | rate | " + " | ".join(budgets) + " |",
        "|---|---|" + "---|" * len(budgets),
    ]
    for arm in arms:
        cells = [cell(table.get((arm, budget), {})) for budget in budgets]
        rates = dict.fromkeys(tuned_rate(task, arm, b) for b in budgets if (arm, b) in table)
        lines.append(f"| {arm} | {', '.join(f'{r:g}' for r in rates)} | {' | '.join(cells)} |")
    lines += ["", *differences(table, arms, budgets), "", *regret(table, budgets)]
    return [*lines, "", *times(table, budgets), "", *ends(table), "", *engagement(table), ""]


def cell(runs: Runs) -> str:
    """One arm at one budget."""
    if not runs:
        return ""
    mean, half = interval([score(run) for run in runs.values()])
    spread = "" if math.isinf(half) else f" ± {half:.2f}"
    return f"{mean:.2f}{spread} ({len(runs)})"


def differences(table: Table, arms: Sequence[str], budgets: Sequence[str]) -> list[str]:
    """Ours less each arm at the same cost, over paired seeds."""
    head = [
        "Ours less the arm, paired seeds; **bold** where the interval leaves out 0:",
        "",
        "| arm | " + " | ".join(budgets) + " |",
        "|---|" + "---|" * len(budgets),
    ]
    rows = []
    for arm in arms:
        cells = []
        for budget in budgets:
            found = paired(table.get((OURS, budget), {}), table.get((arm, budget), {}))
            cells.append("" if found is None else signed(*found[:2]))
        if arm != OURS and any(cells):
            rows.append(f"| {arm} | " + " | ".join(cells) + " |")
    return [*head, *rows] if rows else []


def signed(mean: float, half: float) -> str:
    """A difference with its interval."""
    text = f"{mean:+.2f}" + ("" if math.isinf(half) else f" ± {half:.2f}")
    return f"**{text}**" if abs(mean) > half else text


def best_static(table: Table, budget: str) -> tuple[str, tuple[float, float, int] | None] | None:
    """The static arm of the best mean, and ours less it; None where there are no runs of both."""
    means = {
        arm: statistics.mean(score(run) for run in runs.values())
        for (arm, its_budget), runs in table.items()
        if its_budget == budget and arm.startswith(STATIC)
    }
    if not means or (OURS, budget) not in table:
        return None
    best = max(means, key=lambda arm: means[arm])
    return best, paired(table[OURS, budget], table[best, budget])


def regret_points(table: Table) -> list[tuple[float, float, float]]:
    """(cost share, ours less the best static plan, half its interval) for each budget."""
    points = []
    for budget in sorted({budget for _, budget in table}, key=Fraction):
        found = best_static(table, budget)
        if found is not None and found[1] is not None:
            mean, half, _ = found[1]
            points.append((float(Fraction(budget)), mean, 0.0 if math.isinf(half) else half))
    return points


def regret(table: Table, budgets: Sequence[str]) -> list[str]:
    """Ours against the best static plan in hindsight, and against the whole full run."""
    head = [
        "| budget | best static plan in hindsight | ours less it | ours less the full run | "
        "steps of ours |",
        "|---|---|---|---|---|",
    ]
    rows = []
    for budget in budgets:
        found = best_static(table, budget)
        if found is None:
            continue
        best, static = found
        ours = table[OURS, budget]
        whole = paired(ours, table.get((FULL, "1"), {}))
        steps = statistics.mean(run["steps"] for run in ours.values())
        cells = ["" if pair is None else signed(*pair[:2]) for pair in (static, whole)]
        rows.append(f"| {budget} | {best} | {cells[0]} | {cells[1]} | {steps:.0f} |")
    return [*head, *rows] if rows else []


def times(table: Table, budgets: Sequence[str]) -> list[str]:
    """Processor time against cost: of the full run, and of full training for the same FLOPs."""
    head = [
        "Processor time of ours over that of the full run, beside its share of the FLOPs, and over "
        "that of full training for the same FLOPs:",
        "",
        "| budget | FLOPs | time / full run | time / full training at this budget |",
        "|---|---|---|---|",
    ]
    rows = []
    for budget in budgets:
        ours = table.get((OURS, budget), {})
        ratios = [time_ratio(ours, table.get((FULL, of), {})) for of in ("1", budget)]
        if any(ratios):
            share = statistics.mean(run["flops"] / run["reference_flops"] for run in ours.values())
            rows.append(f"| {budget} | {share:.3f} | {' | '.join(ratios)} |")
    return [*head, *rows] if rows else []


def time_ratio(first: Runs, second: Runs) -> str:
    """Processor time of the seeds that both have, over the other's; empty if there are none."""
    seeds = sorted(set(first) & set(second))
    totals = [sum(runs[seed]["cpu_seconds"] for seed in seeds) for runs in (first, second)]
    return f"{totals[0] / totals[1]:.3f}" if seeds else ""


def ends(table: Table) -> list[str]:
    """Runs of ours that handed part of the budget back, and why."""
    lines = ["| budget | seed | handed back | why |", "|---|---|---|---|"]
    runs = [
        (budget, seed, run)
        for (arm, budget), by_seed in table.items()
        for seed, run in by_seed.items()
        if arm == OURS
    ]
    for budget, seed, run in sorted(runs, key=lambda row: (Fraction(row[0]), row[1])):
        if run.get("left", 0.0) > _HANDED_BACK:
            lines.append(f"| {budget} | {seed} | {run['left']:.0%} | {run['ended']} |")
    return lines if len(lines) > 2 else []


def engagement(table: Table) -> list[str]:
    """Whether all runs trained what they said they would."""
    runs = [run for runs in table.values() for run in runs.values() if "engagement" in run]
    if not runs:
        return []
    odd = [run for run in runs if run["engagement"]["idle"] or run["engagement"]["leaked"]]
    lines = [
        f"Engagement: in {len(runs) - len(odd)} of {len(runs)} runs all that was to train moved, "
        "and nothing else."
    ]
    for run in odd:
        idle, leaked = (len(run["engagement"][key]) for key in ("idle", "leaked"))
        about = f"{run['arm']}, {run['budget']}, seed {run['seed']}"
        lines.append(f"- {about}: {idle} parameters should have moved, {leaked} should not have.")
    return lines


def table_points(
    table: Table, value: Callable[[Run], float], order: Sequence[str]
) -> dict[str, list[tuple[float, float, float]]]:
    """By arm, in that order: share of the full run's cost, mean value, half its interval."""
    points: dict[str, list[tuple[float, float, float]]] = defaultdict(list)
    for (arm, budget), runs in table.items():
        mean, half = interval([value(run) for run in runs.values()])
        points[arm].append((float(Fraction(budget)), mean, 0.0 if math.isinf(half) else half))
    return {arm: sorted(points[arm]) for arm in sorted(points, key=order.index)}


def tables() -> dict[str, Table]:
    """Finished runs of every task that has any."""
    return {task: table for task in TASKS if (table := load(task))}


def page(found: Mapping[str, Table]) -> str:
    """The whole page."""
    lines = [(HERE / "PROTOCOL.md").read_text(encoding="utf-8").rstrip(), ""]
    if any(map(regret_points, found.values())):
        lines += [f"![Ours less the best static plan in hindsight](figures/{REGRET})", ""]
    for task, table in found.items():
        lines += section(task, table)
    return "\n".join(lines).rstrip() + "\n"


def main() -> None:
    """Write the page and draw its figures."""
    found = tables()
    for task, table in found.items():
        lines = table_points(table, score, list(ARMS))
        plot_quality(task, name_of(task), lines, HERE / "figures" / f"{task}.png")
    points = {task: line for task, table in found.items() if (line := regret_points(table))}
    if points:
        plot_regret(points, HERE / "figures" / REGRET)
    (HERE / "RESULTS.md").write_text(page(found), encoding="utf-8")


if __name__ == "__main__":
    main()
