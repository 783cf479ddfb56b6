"""How exactly runs end on their budget: `python -m recipes.benchmarks.budget_adherence`.

A 6-block encoder, 15 to 70 % of the full run and absolute budgets, in FLOPs and in seconds. Each
budget is run several times; a run's figure is spent over budget. FLOPs are counted by the ledger,
which `flop_count` checks against real counts; seconds are taken by this script's own clock around
`trainer.fit`. Finished runs are kept: an interrupted benchmark goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from lightning_attnbal import AttentionBalancer
from recipes.benchmarks._common import RESULTS, SequenceClassifier, loader, trainer, write_record

NUM_BATCHES, BATCH_SIZE, MAX_EPOCHS = 300, 4, 3
SHARES = (0.15, 0.25, 0.40, 0.70)


def run(budget: str, max_epochs: int, seed: int) -> dict[str, float]:
    """Train once; what was allowed and spent, by the ledger and by the clock."""
    torch.manual_seed(seed)
    balancer = AttentionBalancer(budget=budget, seed=seed)
    with tempfile.TemporaryDirectory() as folder:
        job = trainer([balancer], Path(folder), max_epochs=max_epochs)
        data = loader(NUM_BATCHES, BATCH_SIZE)
        start = time.perf_counter()
        job.fit(SequenceClassifier(), data)
        wall = time.perf_counter() - start
    assert balancer.limit is not None
    step = balancer.flops.amount / job.global_step
    return {
        "limit": balancer.limit.amount,
        "spent": balancer.spent.amount,
        "wall": wall,
        "steps": job.global_step,
        "mean_step_flops": step,
    }


def budgets(full_flops: float, full_seconds: float) -> dict[str, tuple[str, int]]:
    """Name → (budget, max_epochs)."""
    shares = {f"{share:.0%} FLOPs": (f"{share:.0%}", MAX_EPOCHS) for share in SHARES}
    flops = {"30% as FLOPs, open end": (f"{0.3 * full_flops} FLOP", -1)}
    seconds = {
        f"{share:.0%} of the seconds": (f"{share * full_seconds} s", MAX_EPOCHS) for share in SHARES
    }
    return {**shares, **flops, **seconds, "8 s, open end": ("8 s", -1)}


def figure(name: str, result: dict[str, float]) -> float:
    """Spent over budget."""
    is_time = "seconds" in name or " s," in name
    return (result["wall"] if is_time else result["spent"]) / result["limit"]


def show(record: dict[str, Any]) -> None:
    """One row per budget."""
    table = Table("budget", "runs", "median spent / budget", "min", "max", "steps")
    for name, results in record.items():
        ratios = [figure(name, r) for r in results]
        cells = (f"{f(ratios):.4f}" for f in (statistics.median, min, max))
        table.add_row(name, str(len(ratios)), *cells, f"{results[0]['steps']:.0f}")
    Console().print(table)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=5, help="runs per budget")
    parser.add_argument("--fresh", action="store_true", help="forget the finished runs")
    parser.add_argument("--out", type=Path, default=RESULTS / "budget_adherence.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    known = json.loads(options.out.read_text()) if options.out.exists() else {}
    record = {} if options.fresh else known
    if "full" not in record:
        record = {"full": run("100%", MAX_EPOCHS, seed=0), "runs": {}}
    full = record["full"]
    wanted = budgets(full["spent"], full["wall"])
    for seed in range(options.runs):
        for name, (budget, epochs) in track(wanted.items(), description=f"round {seed}"):
            done = record["runs"].setdefault(name, [])
            if len(done) <= seed:
                done.append(run(budget, epochs, seed))
                write_record(options.out, {"full": full, "runs": record["runs"]})
    show(record["runs"])


if __name__ == "__main__":
    main()
