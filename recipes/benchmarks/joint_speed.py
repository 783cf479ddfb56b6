"""How fast shares and plans of many tasks are found: `python -m recipes.benchmarks.joint_speed`.

One thread; CPU time of that thread, which other programs disturb less than wall time. Tasks are the
random stacks of `allocator_speed`, all units shared, any prefix may be cached in all of them, at
least 2 % and at most half of the steps each. Writes `results/joint_speed.json` beside this file.
"""

from __future__ import annotations

import os

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")

import argparse
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.table import Table

from lightning_attnbal.allocate import Limits, Progress, Segment
from lightning_attnbal.core import FULL
from lightning_attnbal.multitask import ForecastGain, Outlook, TaskTerms, allocate_tasks
from recipes.benchmarks._common import RESULTS, write_record
from recipes.benchmarks.allocator_speed import SEEDS, best_time, tasks

RESULT = RESULTS / "joint_speed.json"
FRACTIONS = (0.1, 0.25, 0.5, 0.75, 1.0)
STEPS = 1000  # of the run whose full training is a budget of 1
Objective = Literal["sum", "worst"]
Gain = Callable[[TaskTerms], TaskTerms]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One benchmark over all seeds and budgets: CPU milliseconds per call, best of `repeats` each.

    Args:
        name: what was solved.
        calls: number of instances (seeds × budgets × with and without a cap on the steps).
        median_ms: median over the instances.
        min_ms: fastest instance.
        max_ms: slowest instance.
        worst_gap: largest relative gap, in [0, inf).
    """

    name: str
    calls: int
    median_ms: float
    min_ms: float
    max_ms: float
    worst_gap: float


def as_it_is(task: TaskTerms) -> TaskTerms:
    """Gains that add up over units and steps."""
    return task


def terms(seed: int, num_tasks: int, num_units: int, num_levels: int) -> list[TaskTerms]:
    """Several stacks that share their units."""
    drawn = tasks(seed, num_tasks, num_units, num_levels)
    return [TaskTerms(problem=replace(p, share=1.0), floor=0.02, cap=0.5) for p in drawn]


def forecast(task: TaskTerms) -> TaskTerms:
    """The same task with gains as the callback has them: a forecast from a run so far."""
    units = tuple(menu.unit for menu in task.problem.menus)
    losses = [2 / (1 + 0.1 * step) for step in range(20)]
    progress = Progress(segments=tuple(Segment(trained=units, steps=1, loss=x) for x in losses))
    outlook = Outlook(progress=progress, epoch_steps=STEPS // 20)
    return replace(task, gain=ForecastGain(task.problem, outlook), epoch_steps=STEPS // 20)


def measure(
    name: str, size: tuple[int, int, int], objective: Objective, repeats: int, gain: Gain = as_it_is
) -> Row:
    """Time all seeds and budgets."""
    times, gaps = [], []
    for seed in SEEDS:
        own = [gain(task) for task in terms(seed, *size)]
        full = sum(t.problem.evaluate((FULL,) * size[1])[0] for t in own) / len(own)
        for fraction in FRACTIONS:
            for max_steps in (None, STEPS):
                limits = Limits(remaining=fraction * STEPS * full, max_steps=max_steps)
                solve = partial(allocate_tasks, own, limits, objective=objective)
                elapsed, solution = best_time(solve, repeats)
                times.append(elapsed)
                gaps.append(solution.relative_gap)
    return Row(
        name=name,
        calls=len(times),
        median_ms=round(statistics.median(times), 1),
        min_ms=round(min(times), 1),
        max_ms=round(max(times), 1),
        worst_gap=float(f"{max(gaps):.3g}"),
    )


def run(repeats: int) -> list[Row]:
    """All benchmarks."""
    return [
        measure("8 tasks × 48 units × 5 levels, sum", (8, 48, 5), "sum", repeats),
        measure("8 tasks × 48 units × 5 levels, worst", (8, 48, 5), "worst", repeats),
        measure("3 tasks × 12 units × 3 levels, exact frontiers", (3, 12, 3), "sum", repeats),
        measure("8 tasks × 48 units × 5 levels, forecasts", (8, 48, 5), "sum", repeats, forecast),
        measure("4 tasks × 8 units × 3 levels, forecasts", (4, 8, 3), "sum", repeats, forecast),
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3, help="calls per instance, at least 1")
    parser.add_argument("--output", type=Path, default=RESULT)
    options = parser.parse_args(arguments)
    rows = run(options.repeats)
    table = Table("instance", "calls", "median CPU ms", "min", "max", "worst gap")
    for row in rows:
        table.add_row(
            row.name,
            *map(str, (row.calls, row.median_ms, row.min_ms, row.max_ms)),
            f"{row.worst_gap:.2%}",
        )
    Console().print(table)
    write_record(options.output, {"rows": [asdict(row) for row in rows]})


if __name__ == "__main__":
    main()
