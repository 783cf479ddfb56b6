"""Runs the comparison: `python -m recipes.benchmarks.tasks --suite reviews --arms ours uniform`.

Finished runs are kept and not run again, so an interrupted comparison goes on where it stopped.
Several of these may run at a time, each on a core of its own (`taskset`): a run that another has
begun is left to it.
"""

from __future__ import annotations

import argparse
import logging
import warnings
from collections.abc import Iterator
from itertools import product

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from recipes.benchmarks._bf16 import use_float32_products
from recipes.benchmarks.compare.reference import write_whole
from recipes.benchmarks.tasks.arms import ARMS
from recipes.benchmarks.tasks.job import DEV_SEED, Job, run
from recipes.benchmarks.tasks.suites import SUITES
from recipes.benchmarks.tasks.tuning import grid, tuned_rate


def main() -> None:
    """Run what is asked for and not done yet."""
    options = parse()
    torch.set_num_threads(1)
    use_float32_products()
    warnings.filterwarnings("ignore", message=".*does not have many workers")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    jobs = list(asked(options))
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeRemainingColumn()) as progress:
        bar = progress.add_task("runs", total=len(jobs))
        for job in jobs:
            one(job)
            progress.advance(bar)


def asked(options: argparse.Namespace) -> Iterator[Job]:
    """What the command line asks for, at tuned rates or, to tune, at all."""
    suite = options.suite
    if options.tune:
        arms = [arm for arm in options.arms if not ARMS[arm].tuned_as]
        for budget, arm, lr in product(options.budgets, arms, grid(suite)):
            yield Job(suite=suite, arm=arm, budget=budget, seed=DEV_SEED, lr=lr)
        return
    for seed, budget, arm in product(options.seeds, options.budgets, options.arms):
        yield Job(suite=suite, arm=arm, budget=budget, seed=seed, lr=tuned_rate(suite, arm))


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--suite", choices=SUITES, required=True)
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--budgets", nargs="+", default=["1/4", "1/2", "1"], help="of the full run")
    parser.add_argument("--seeds", nargs="+", type=int, default=list(range(5)))
    tune = "try learning rates on validation rows; no results"
    parser.add_argument("--tune", action="store_true", help=tune)
    return parser.parse_args()


def one(job: Job) -> None:
    """Run a job, unless it is done or somebody is at it."""
    claim = job.path.with_suffix(".running")
    if job.path.exists():
        return
    claim.parent.mkdir(parents=True, exist_ok=True)
    try:
        claim.touch(exist_ok=False)
    except FileExistsError:
        return
    try:
        write_whole(job.path, run(job))
    finally:
        claim.unlink()


if __name__ == "__main__":
    main()
