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
from recipes.benchmarks.compare.figures import plot_quality
from recipes.benchmarks.compare.job import FOLDER, Job
from recipes.benchmarks.compare.tasks import TASKS
from recipes.benchmarks.compare.tuning import tuned_rate

HERE = Path(__file__).parent
OURS, FULL = "ours", "full"
STATIC = (FULL, "last-")

Run = Mapping[str, Any]
Runs = Mapping[int, Run]  # by seed
Table = Mapping[tuple[str, str], Runs]  # by arm and budget


def load(task: str) -> Table:
    """Finished runs of a task, those with other settings left out."""
    found: dict[tuple[str, str], dict[int, dict[str, Any]]] = defaultdict(dict)
    for path in sorted((FOLDER / task / "test").glob("*.json")):
        run = json.loads(path.read_text(encoding="utf-8"))
        job = Job(**{name: run[name] for name in Job.__dataclass_fields__})
        if job.arm in ARMS and job.path == path and job.lr == tuned_rate(task, job.arm):
            found[job.arm, job.budget][job.seed] = run
    return found


def score(run: Run) -> float:
    """The task's metric on the test rows, in percent."""
    return 100 * float(run["scores"][TASKS[run["task"]].metric])


def name_of(task: str) -> str:
    """The metric in words."""
    return {"accuracy": "accuracy", "macro_f1": "macro-F1"}[TASKS[task].metric]


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


def section(task: str) -> list[str]:
    """Everything about one task."""
    table = load(task)
    if not table:
        return []
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
        lines.append(f"| {arm} | {tuned_rate(task, arm):g} | " + " | ".join(cells) + " |")
    lines += ["", *differences(table, arms, budgets), "", *regret(table, arms, budgets)]
    return [*lines, "", *times(table, budgets), ""]


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


def regret(table: Table, arms: Sequence[str], budgets: Sequence[str]) -> list[str]:
    """Ours against the best static plan in hindsight, and against the whole full run."""
    head = [
        "| budget | best static plan in hindsight | ours less it | ours less the full run | "
        "steps of ours |",
        "|---|---|---|---|---|",
    ]
    rows = []
    for budget in budgets:
        ours = table.get((OURS, budget), {})
        fixed = {
            arm: statistics.mean(score(r) for r in table[arm, budget].values())
            for arm in arms
            if arm.startswith(STATIC) and (arm, budget) in table
        }
        if not ours or not fixed:
            continue
        best = max(fixed, key=lambda arm: fixed[arm])
        static = paired(ours, table[best, budget])
        whole = paired(ours, table.get((FULL, "1"), {}))
        steps = statistics.mean(run["steps"] for run in ours.values())
        cells = ["" if found is None else signed(*found[:2]) for found in (static, whole)]
        rows.append(f"| {budget} | {best} | {cells[0]} | {cells[1]} | {steps:.0f} |")
    return [*head, *rows] if rows else []


def times(table: Table, budgets: Sequence[str]) -> list[str]:
    """Processor time against cost."""
    whole = table.get((FULL, "1"), {})
    if not whole:
        return []
    seconds = statistics.mean(run["cpu_seconds"] for run in whole.values())
    lines = [
        "Processor time of ours over that of the full run, beside its share of the FLOPs:",
        "",
        "| budget | FLOPs | time |",
        "|---|---|---|",
    ]
    for budget in budgets:
        runs = table.get((OURS, budget), {}).values()
        if runs:
            cost = statistics.mean(run["flops"] / run["reference_flops"] for run in runs)
            time = statistics.mean(run["cpu_seconds"] for run in runs) / seconds
            lines.append(f"| {budget} | {cost:.3f} | {time:.3f} |")
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


def page() -> str:
    """The whole page."""
    lines = [(HERE / "PROTOCOL.md").read_text(encoding="utf-8").rstrip(), ""]
    for task in TASKS:
        lines += section(task)
    return "\n".join(lines).rstrip() + "\n"


def main() -> None:
    """Write the page and draw its figures."""
    for task in TASKS:
        table = load(task)
        if table:
            lines = table_points(table, score, list(ARMS))
            plot_quality(task, name_of(task), lines, HERE / "figures" / f"{task}.png")
    (HERE / "RESULTS.md").write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
