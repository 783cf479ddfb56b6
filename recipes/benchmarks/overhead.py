"""What the callback costs when the budget is 100 %: `python -m recipes.benchmarks.overhead`.

A plain and a balanced run (budget 100 %) take turns, step by step, in two threads of which one
waits while the other steps, so that a slow spell of the machine hits both. A step is timed from its
first to its last hook; the ratio is taken between neighbours, the first ten steps dropped. Who
steps first alternates from round to round: two equal runs differ by 1 to 2 % that way, which
cancels in the geometric mean of both orders.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import tempfile
import threading
import time
import warnings
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from rich.console import Console
from rich.table import Table

from lightning_attnbal import AttentionBalancer
from recipes.benchmarks._common import RESULTS, SequenceClassifier, loader, trainer, write_record

WARM_UP = 10


class Turn(pl.Callback):
    """First callback of a run: waits for its turn, then starts the watch."""

    def __init__(self, mine: threading.Semaphore, other: threading.Semaphore) -> None:
        self.seconds: list[float] = []
        self.start = 0.0
        self.mine, self.other = mine, other

    def on_train_batch_start(self, *_: Any) -> None:
        """Wait, then start the watch."""
        self.mine.acquire()
        self.start = time.perf_counter()


class EndOfTurn(pl.Callback):
    """Last callback of a run: stops the watch and lets the other run step."""

    def __init__(self, turn: Turn) -> None:
        self.turn = turn

    def on_train_batch_end(self, *_: Any) -> None:
        """Stop the watch."""
        self.turn.seconds.append(time.perf_counter() - self.turn.start)
        self.turn.other.release()


def fit(callbacks: list[pl.Callback], turn: Turn, num_batches: int, batch_size: int) -> None:
    """One run of an epoch."""
    with tempfile.TemporaryDirectory() as folder:
        job = trainer([turn, *callbacks, EndOfTurn(turn)], Path(folder), max_epochs=1)
        job.fit(SequenceClassifier(), loader(num_batches, batch_size))


def measure(balanced_first: bool, num_batches: int, batch_size: int) -> list[float]:
    """Balanced over plain, for each pair of neighbouring steps."""
    first, second = threading.Semaphore(1), threading.Semaphore(0)
    turns = Turn(first, second), Turn(second, first)
    callbacks: list[list[pl.Callback]] = [[AttentionBalancer(1.0)], []]
    runs = list(zip(turns, callbacks if balanced_first else callbacks[::-1], strict=True))
    (turn, own), (main_turn, main_own) = runs
    thread = threading.Thread(target=fit, args=(own, turn, num_batches, batch_size))
    thread.start()
    fit(main_own, main_turn, num_batches, batch_size)
    thread.join()
    plain, balanced = (t.seconds[WARM_UP:] for t in sorted_by_role(turns, balanced_first))
    return [b / p for p, b in zip(plain, balanced, strict=True)]


def sorted_by_role(turns: tuple[Turn, Turn], balanced_first: bool) -> tuple[Turn, Turn]:
    """(plain, balanced)."""
    return turns[::-1] if balanced_first else turns


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=4, help="pairs of runs, an even number")
    parser.add_argument("--batches", type=int, default=160, help="steps of each run")
    parser.add_argument("--batch-size", type=int, default=16, help="rows of 64 tokens")
    parser.add_argument("--out", type=Path, default=RESULTS / "overhead.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    ratios: dict[bool, list[float]] = {True: [], False: []}
    for number in range(options.rounds):
        role = bool(number % 2)
        ratios[role] += measure(role, options.batches, options.batch_size)
    medians = [statistics.median(r) for r in ratios.values()]
    quartiles = [statistics.quantiles(r, n=4) for r in ratios.values()]
    summary = {
        "ratio": statistics.geometric_mean(medians),
        "balanced_first": medians[0],
        "plain_first": medians[1],
        "quartile_low": statistics.geometric_mean(q[0] for q in quartiles),
        "quartile_high": statistics.geometric_mean(q[2] for q in quartiles),
        "pairs": sum(map(len, ratios.values())),
    }
    write_record(options.out, {"batch_size": options.batch_size, **summary})
    table = Table(*summary)
    table.add_row(*(f"{value:.4f}" for value in summary.values()))
    Console().print(table)


if __name__ == "__main__":
    main()
