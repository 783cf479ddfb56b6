"""Writes `RESULTS.md` and its figures from what was run: `python -m ...tasks.report`.

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

from recipes.benchmarks.compare.figures import plot_quality
from recipes.benchmarks.compare.report import interval, signed, table_points
from recipes.benchmarks.tasks.arms import ARMS
from recipes.benchmarks.tasks.job import FOLDER, Job
from recipes.benchmarks.tasks.suites import SUITES
from recipes.benchmarks.tasks.tuning import tuned_rate

HERE = Path(__file__).parent
OURS = "ours"
ABLATIONS = {"ours-turns", "no-cache"}

Run = Mapping[str, Any]
Runs = Mapping[int, Run]  # by seed
Table = Mapping[tuple[str, str], Runs]  # by arm and budget
Score = Callable[[Run], float]


def load(suite: str) -> Table:
    """Finished runs of a suite, those of old revisions and rates left out."""
    found: dict[tuple[str, str], dict[int, Run]] = defaultdict(dict)
    for path in sorted((FOLDER / suite / "test").glob("*.json")):
        run = json.loads(path.read_text(encoding="utf-8"))
        job = Job(**{name: run[name] for name in Job.__dataclass_fields__})
        is_tuned = job.arm in ARMS and job.lr == tuned_rate(suite, job.arm)
        if is_tuned and job.path == path:
            found[job.arm, job.budget][job.seed] = run
    return found


def of_tasks(run: Run, metric: str) -> list[float]:
    """A metric of every task, in percent."""
    return [100 * v for name, v in run["scores"].items() if name.endswith(f"/{metric}")]


def mean_f1(run: Run) -> float:
    """Macro-F1, mean over the tasks."""
    return statistics.mean(of_tasks(run, "macro_f1"))


def worst_f1(run: Run) -> float:
    """Macro-F1 of the task that has least."""
    return min(of_tasks(run, "macro_f1"))


def mean_accuracy(run: Run) -> float:
    """Accuracy, mean over the tasks."""
    return statistics.mean(of_tasks(run, "accuracy"))


SCORES: dict[str, Score] = {
    "macro-F1, mean over the tasks": mean_f1,
    "macro-F1 of the worst task": worst_f1,
    "accuracy, mean over the tasks": mean_accuracy,
}


def section(suite: str) -> list[str]:
    """Everything about one suite."""
    table = load(suite)
    if not table:
        return []
    budgets = sorted({budget for _, budget in table}, key=Fraction)
    arms = sorted({arm for arm, _ in table}, key=list(ARMS).index)
    lines = [
        f"## {suite}",
        "",
        _rates(suite, arms),
        "",
        f"![Quality against cost](figures/{suite}.png)",
        "",
        "Tests in percent: mean ± half of the 95 % interval over seeds (number of seeds); ours "
        "less the arm over paired seeds, **bold** where the interval leaves out 0.",
        "",
    ]
    for title, score in SCORES.items():
        lines += [f"Test {title}:", "", *_table(table, arms, budgets, score), ""]
    return [*lines, *_worst(table, arms, budgets, SUITES[suite].tasks), ""]


def _rates(suite: str, arms: Sequence[str]) -> str:
    rates = {arm: tuned_rate(suite, arm) for arm in arms if not ARMS[arm].tuned_as}
    chosen = ", ".join(f"{arm} {rate:g}" for arm, rate in rates.items())
    return f"Peak learning rates chosen: {chosen}."


def _table(table: Table, arms: Sequence[str], budgets: Sequence[str], score: Score) -> list[str]:
    heads = [f"{budget} | ours less it" for budget in budgets]
    lines = ["| arm | " + " | ".join(heads) + " |", "|---|" + "---|---|" * len(budgets)]
    for arm in arms:
        cells = []
        for budget in budgets:
            runs = table.get((arm, budget), {})
            ours = table.get((OURS, budget), {})
            cells += [_cell(runs, score), "" if arm == OURS else _less(ours, runs, score)]
        lines.append(f"| {arm} | " + " | ".join(cells) + " |")
    return lines


def _cell(runs: Runs, score: Score) -> str:
    if not runs:
        return ""
    mean, half = interval([score(run) for run in runs.values()])
    spread = "" if math.isinf(half) else f" ± {half:.2f}"
    return f"{mean:.2f}{spread} ({len(runs)})"


def _less(ours: Runs, other: Runs, score: Score) -> str:
    seeds = sorted(set(ours) & set(other))
    if not seeds:
        return ""
    return signed(*interval([score(ours[seed]) - score(other[seed]) for seed in seeds]))


def _worst(
    table: Table, arms: Sequence[str], budgets: Sequence[str], tasks: Sequence[str]
) -> list[str]:
    """Task by task, ours against the best of the others."""
    lines = [
        "Task by task, macro-F1: ours, the best other arm in hindsight, and the difference:",
        "",
        "| budget | task | ours | best other | ours less it |",
        "|---|---|---|---|---|",
    ]
    for budget in budgets:
        ours = table.get((OURS, budget), {})
        rivals = [arm for arm in arms if arm not in {OURS, *ABLATIONS}]
        others = [arm for arm in rivals if (arm, budget) in table]
        for task in tasks if ours and others else ():
            score = _of(task)
            means = {
                arm: statistics.mean(score(r) for r in table[arm, budget].values())
                for arm in others
            }
            best = max(means, key=lambda arm: means[arm])
            lines.append(
                f"| {budget} | {task} | {_cell(ours, score)} | {best} {means[best]:.2f} | "
                f"{_less(ours, table[best, budget], score)} |"
            )
    return lines


def _of(task: str) -> Score:
    return lambda run: 100 * float(run["scores"][f"{task}/macro_f1"])


def page() -> str:
    """The whole page."""
    lines = [(HERE / "PROTOCOL.md").read_text(encoding="utf-8").rstrip(), ""]
    for suite in SUITES:
        lines += section(suite)
    return "\n".join(lines).rstrip() + "\n"


def main() -> None:
    """Write the page and draw its figures."""
    for suite in SUITES:
        table = load(suite)
        if table:
            picture = HERE / "figures" / f"{suite}.png"
            lines = table_points(table, mean_f1, list(ARMS))
            plot_quality(suite, "macro-F1, mean over the tasks", lines, picture)
    (HERE / "RESULTS.md").write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
