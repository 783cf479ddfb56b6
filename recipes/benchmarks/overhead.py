"""What the callback costs when the budget is 100 %: `python -m recipes.benchmarks.overhead`.

Plain Lightning and a balanced run at 100 % alternate; each run's figure is the median seconds of
its steps (from one batch end to the next, the first ten dropped). The ratio is taken pair by pair.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from lightning_attnbal import AttentionBalancer
from recipes.benchmarks._common import RESULTS, SequenceClassifier, loader, trainer, write_record

WARM_UP = 10


class StepTimes(pl.Callback):
    """Seconds from one batch end to the next."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._last = 0.0

    def on_train_batch_end(self, *_: Any) -> None:
        """Note the time since the batch before."""
        now = time.perf_counter()
        self.seconds.append(now - self._last)
        self._last = now


def median_step(callbacks: list[pl.Callback], num_batches: int, batch_size: int) -> float:
    """Median seconds of a step of a short run with these callbacks."""
    torch.manual_seed(0)
    times = StepTimes()
    with tempfile.TemporaryDirectory() as folder:
        job = trainer([*callbacks, times], Path(folder), max_epochs=1)
        job.fit(SequenceClassifier(), loader(num_batches, batch_size))
    return statistics.median(times.seconds[WARM_UP:])


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pairs", type=int, default=15, help="pairs of runs")
    parser.add_argument("--batches", type=int, default=60, help="batches per run")
    parser.add_argument("--batch-size", type=int, default=16, help="rows of 64 tokens")
    parser.add_argument("--out", type=Path, default=RESULTS / "overhead.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    arms: dict[str, list[float]] = {"plain": [], "balanced": []}
    for pair in track(range(options.pairs), description="pairs"):
        for name in sorted(arms, reverse=bool(pair % 2)):
            callbacks: list[pl.Callback] = [AttentionBalancer(1.0)] if name == "balanced" else []
            arms[name].append(median_step(callbacks, options.batches, options.batch_size))
    ratios = [b / p for p, b in zip(arms["plain"], arms["balanced"], strict=True)]
    summary = {
        "median_ratio": statistics.median(ratios),
        "min_ratio": min(ratios),
        "max_ratio": max(ratios),
        "plain_step_seconds": statistics.median(arms["plain"]),
    }
    write_record(options.out, {**summary, "pairs": arms})
    table = Table(*summary)
    table.add_row(*(f"{value:.4f}" for value in summary.values()))
    Console().print(table)


if __name__ == "__main__":
    main()
