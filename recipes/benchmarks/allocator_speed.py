"""How fast the allocator is, and how tight: `python -m recipes.benchmarks.allocator_speed`.

One thread; CPU time of that thread, which other programs disturb less than wall time.
Instances are drawn like real stacks: forward, dX and dW cost the same per block up to noise,
contributions are log-normal, LoRA earns a random share of full training. Writes
`results/allocator_speed.json` beside this file.
"""

from __future__ import annotations

import os

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
from rich.console import Console
from rich.table import Table

from lightning_attnbal.allocate import Solution, frontier, solve_exact, solve_lagrangian
from lightning_attnbal.core import CACHED, DETACHED, FROZEN, FULL, Menu, Option, Problem, lora
from recipes.benchmarks._common import RESULTS, write_record

RESULT = RESULTS / "allocator_speed.json"
FRACTIONS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
SEEDS = range(3)
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One benchmark over all seeds and budgets: CPU milliseconds per call, best of `repeats` each.

    Args:
        name: what was solved.
        calls: number of instances (seeds × budgets).
        median_ms: median over the instances.
        min_ms: fastest instance.
        max_ms: slowest instance.
        worst_gap: largest relative gap, in [0, inf).
        proven: share of instances solved to proven optimality, in [0, 1].
    """

    name: str
    calls: int
    median_ms: float
    min_ms: float
    max_ms: float
    worst_gap: float
    proven: float


def stack(seed: int, num_units: int, num_levels: int, *, steps: int | None = None) -> Problem:
    """A random stack of blocks; with `steps`, whole costs that add up to about so many."""
    rng = np.random.default_rng(seed)
    unit = 1.0 if steps is None else steps / (3 * num_units)

    def cost(amount: float) -> float:
        return float(amount * unit) if steps is None else float(round(amount * unit))

    menus = []
    for i in range(num_units):
        forward, value = rng.uniform(0.5, 1.5), float(rng.lognormal(0.0, 1.0)) * 0.01
        above = cost(forward)
        adapters = [(8, 1.3, rng.uniform(0.3, 0.9)), (2, 1.1, rng.uniform(0.1, 0.5))]
        options = [
            Option(level=FROZEN, cost=cost(forward), cost_above=above),
            Option(level=FULL, cost=cost(2 * forward), cost_above=above, value=value),
            Option(level=CACHED, cost=cost(0.02 * forward)),
            *(
                Option(
                    level=lora(rank), cost=cost(f * forward), cost_above=above, value=share * value
                )
                for rank, f, share in adapters
            ),
            Option(level=DETACHED, cost=cost(forward)),
        ]
        menus.append(Menu(f"layer.{i}", tuple(options[:num_levels])))
    return Problem(tuple(menus), fixed=1.0, task=f"task.{seed}", share=1.0)


def tasks(seed: int, num_tasks: int, num_units: int, num_levels: int) -> list[Problem]:
    """Several stacks that share the steps equally."""
    drawn = (stack(seed * num_tasks + i, num_units, num_levels) for i in range(num_tasks))
    return [Problem(p.menus, p.fixed, p.task, 1.0 / num_tasks) for p in drawn]


def full_cost(problems: Sequence[Problem]) -> float:
    """Cost per step of training everything."""
    return sum(p.evaluate((FULL,) * len(p.menus))[0] for p in problems)


def measure(
    name: str,
    draw: Callable[[int], list[Problem]],
    solver: Callable[[list[Problem], float], Solution],
    repeats: int,
) -> Row:
    """Time a solver over all seeds and budgets."""
    times, gaps = [], []
    for seed in SEEDS:
        problems = draw(seed)
        for fraction in FRACTIONS:
            budget = fraction * full_cost(problems)
            elapsed, solution = best_time(partial(solver, problems, budget), repeats)
            times.append(elapsed)
            gaps.append(solution.relative_gap)
    return Row(
        name=name,
        calls=len(times),
        median_ms=round(statistics.median(times), 2),
        min_ms=round(min(times), 2),
        max_ms=round(max(times), 2),
        worst_gap=float(f"{max(gaps):.3g}"),
        proven=round(sum(gap == 0 for gap in gaps) / len(gaps), 3),
    )


def best_time(solve: Callable[[], T], repeats: int) -> tuple[float, T]:
    """CPU milliseconds of the fastest of `repeats` calls, and the answer."""
    times = []
    for _ in range(repeats):
        start = time.thread_time()
        solution = solve()
        times.append(1e3 * (time.thread_time() - start))
    return min(times), solution


def most_valuable(problems: list[Problem], _: float) -> Solution:
    """The end of the whole frontier (its budget is open)."""
    return frontier(problems)[-1]


def run(repeats: int) -> list[Row]:
    """All benchmarks."""
    return [
        measure(
            "exact, 48 units × 5 levels, 1,000 whole cost steps",
            lambda seed: [stack(seed, 48, 5, steps=1000)],
            solve_exact,
            repeats,
        ),
        measure(
            "exact, 48 units × 5 levels, real costs",
            lambda seed: [stack(seed, 48, 5)],
            solve_exact,
            repeats,
        ),
        measure(
            "Lagrangian, 48 units × 5 levels, real costs",
            lambda seed: [stack(seed, 48, 5)],
            solve_lagrangian,
            repeats,
        ),
        measure(
            "Lagrangian, 8 tasks × 200 units × 6 levels",
            lambda seed: tasks(seed, 8, 200, 6),
            solve_lagrangian,
            repeats,
        ),
        measure(
            "frontier, 12 units × 5 levels",
            lambda seed: [stack(seed, 12, 5)],
            most_valuable,
            1,
        ),
    ]


def show(rows: Sequence[Row]) -> None:
    """Print the figures."""
    table = Table("instance", "calls", "median CPU ms", "min", "max", "worst gap", "proven")
    for row in rows:
        figures = (row.calls, row.median_ms, row.min_ms, row.max_ms)
        table.add_row(row.name, *map(str, figures), f"{row.worst_gap:.2%}", f"{row.proven:.0%}")
    Console().print(table)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5, help="calls per instance, at least 1")
    parser.add_argument("--output", type=Path, default=RESULT)
    options = parser.parse_args(arguments)
    rows = run(options.repeats)
    show(rows)
    write_record(options.output, {"rows": [asdict(row) for row in rows]})


if __name__ == "__main__":
    main()
