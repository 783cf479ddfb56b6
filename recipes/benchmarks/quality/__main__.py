"""Runs what is missing: `python -m recipes.benchmarks.quality --name text --seeds 0 1 2`.

Finished runs are kept; several of these may run at a time, each on a core of its own (`taskset`).
"""

from __future__ import annotations

import argparse
import shutil
import time
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from recipes.benchmarks._common import machine
from recipes.benchmarks.compare.reference import write_whole
from recipes.benchmarks.quality.plan import KINDS, MEASURED, Launch, launches
from recipes.train import compose_run, train


def main() -> None:
    """Run what is asked for and not done yet."""
    options = parse()
    runs = list(launches(options.name, tuple(options.kinds), tuple(options.seeds)))
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeRemainingColumn()) as progress:
        bar = progress.add_task(options.name, total=len(runs))
        for launch in runs:
            one(launch)
            progress.advance(bar)


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--name", choices=MEASURED, required=True)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    return parser.parse_args()


def one(launch: Launch) -> None:
    """Run it, unless it is done or somebody is at it."""
    claim = launch.path.with_suffix(".running")
    if launch.path.exists():
        return
    claim.parent.mkdir(parents=True, exist_ok=True)
    try:
        claim.touch(exist_ok=False)
    except FileExistsError:
        return
    extra = ["baselines=true"] if launch.kind == "full" and launch.seed == 0 else []
    try:
        with TemporaryDirectory() as folder:
            began = time.process_time()
            outcome = train(compose_run([*launch.overrides, *extra]), Path(folder))
            facts = {"cpu_seconds": time.process_time() - began, "machine": machine()}
            if launch.kind == "balanced" and launch.seed == 0:
                shutil.copy(Path(folder) / "attnbal.jsonl", launch.events)
        write_whole(launch.path, {**asdict(launch), **asdict(outcome), **facts})
    finally:
        claim.unlink()


if __name__ == "__main__":
    main()
