"""Runs the comparison: `python -m recipes.benchmarks.compare --task banking77 --arms ours full`.

Every run is a process of its own on one core; finished ones are kept and not run again, so an
interrupted comparison goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from itertools import product

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from recipes.benchmarks.compare.arms import ARMS
from recipes.benchmarks.compare.job import Job
from recipes.benchmarks.compare.tasks import TASKS
from recipes.benchmarks.compare.tuning import DEV_SEED, beyond_the_edge, grid, tuned_rate


def main() -> None:
    """Run what is asked for and not done yet."""
    options = parse()
    if options.tune:
        tune(options)
        return
    run_all(
        [
            Job(task=options.task, arm=a, budget=b, seed=s, lr=tuned_rate(options.task, a, b))
            for s, b, a in product(options.seeds, options.budgets, options.arms)
        ],
        options.cores,
    )


def tune(options: argparse.Namespace) -> None:
    """Try rates; where the best one is at an edge of those tried, the next one beyond it, too."""
    pairs = product(options.budgets, options.arms)
    tries = {(budget, arm): grid(options.task, arm) for budget, arm in pairs}
    while tries:
        run_all(
            [
                Job(task=options.task, arm=arm, budget=b, seed=DEV_SEED, lr=lr, is_dev=True)
                for (b, arm), rates in tries.items()
                for lr in rates
            ],
            options.cores,
        )
        beyond = {(b, arm): beyond_the_edge(options.task, arm, b) for b, arm in tries}
        tries = {pair: [lr] for pair, lr in beyond.items() if lr is not None}


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--task", choices=TASKS, required=True)
    parser.add_argument("--arms", nargs="+", choices=ARMS, help="default: all that suit the task")
    parser.add_argument(
        "--budgets", nargs="+", default=["1/6", "1/4", "1/3"], help="of the full run"
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=list(range(5)))
    parser.add_argument("--cores", nargs="+", type=int, default=sorted(os.sched_getaffinity(0)))
    parser.add_argument(
        "--tune",
        action="store_true",
        help="try each arm's learning rates on held-out training rows",
    )
    options = parser.parse_args()
    if options.arms is None:
        options.arms = [arm for arm in ARMS if arm not in TASKS[options.task].without]
    return options


def run_all(jobs: Sequence[Job], cores: Sequence[int]) -> None:
    """Run those of the jobs that are not done yet, one at a time on each core.

    Raises:
        RuntimeError: some failed, which is said after the others have finished.
    """
    jobs = [job for job in jobs if not job.path.exists()]
    failures: list[str] = []
    free: queue.Queue[int] = queue.Queue()
    for core in cores:
        free.put(core)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with (
        Progress(*columns, TimeRemainingColumn()) as progress,
        ThreadPoolExecutor(len(cores)) as pool,
    ):
        bar = progress.add_task("runs", total=len(jobs))

        def one(job: Job) -> None:
            core = free.get()
            try:
                run_one(job, core)
            except RuntimeError as error:
                failures.append(str(error))
            finally:
                free.put(core)
                progress.advance(bar)

        for done in [pool.submit(one, job) for job in jobs]:
            done.result()
    if failures:
        msg = f"{len(failures)} of {len(jobs)} runs failed.\n" + "\n".join(failures)
        raise RuntimeError(msg)


def run_one(job: Job, core: int) -> None:
    """Run a job on a core.

    Raises:
        RuntimeError: it failed; with the end of what it printed.
    """
    command = [sys.executable, "-m", "recipes.benchmarks.compare.job"]
    command = ["taskset", "-c", str(core), "nice", "-n", "10", *command]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    text = json.dumps(asdict(job))
    done = subprocess.run(command, input=text, text=True, capture_output=True, env=environment)
    if done.returncode:
        msg = f"Expected {job} to finish, but it ended with:\n{done.stderr[-2000:]}"
        raise RuntimeError(msg)


if __name__ == "__main__":
    main()
