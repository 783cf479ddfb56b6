"""What scheduling several tasks costs: `python -m recipes.benchmarks.scheduling_overhead`.

Four tasks of 40 to 160 batches take turns on one encoder, four passes over their data on half of
the budget; affinities are measured often at first, then rarely. CPU time of the training thread
(others disturb it less than wall time) is booked to the part of the callback it was spent in, and
divided by that of the whole run:

- affinities: what a step of one task does for another, from gradients at hand;
- decisions: shares and plans;
- serving: the batches in the planned order, less what the user's own loaders take;
- hooks: all that the callback does between steps, decisions and affinities included.

Writes `results/scheduling_overhead.json` beside this file.
"""

from __future__ import annotations

import os

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")

import argparse
import logging
import statistics
import tempfile
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from functools import wraps
from itertools import product
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_attnbal import AttentionBalancer
from lightning_attnbal.callbacks import TaskSettings
from lightning_attnbal.callbacks._task_plans import TaskPlans
from lightning_attnbal.multitask import AffinityMeter, TaskLoader, TaskStream
from recipes.benchmarks._common import RESULTS, SequenceClassifier, trainer, write_record

RESULT = RESULTS / "scheduling_overhead.json"
BATCHES = {"a": 160, "b": 100, "c": 60, "d": 40}
SEEDS = range(3)
HOOKS = ("fit_start", "train_start", "train_epoch_start", "train_batch_start", "before_backward")
HOOKS += ("after_backward", "before_optimizer_step", "train_batch_end", "train_epoch_end")
HOOKS += ("train_end",)
PARTS = ("affinities", "decisions", "serving", "hooks")


class ManyHeads(SequenceClassifier):
    """The encoder with a head per task."""

    def __init__(self, width: int) -> None:
        super().__init__(width=width)
        self.head = nn.ModuleDict({task: nn.Linear(width, 10) for task in BATCHES})

    def training_step(self, batch: dict[str, list[Tensor]]) -> Tensor:  # type: ignore[override]
        """Cross entropy of the task at hand."""
        ((task, (tokens, labels)),) = batch.items()
        hidden = self.encoder(self.embedding(tokens)).mean(1)
        loss: Tensor = nn.functional.cross_entropy(self.head[task](hidden), labels)
        return loss


def loaders(seed: int, batch_size: int = 16, num_tokens: int = 64) -> dict[str, DataLoader[Any]]:
    """Texts of which the class is the most frequent of ten tokens, shifted by the task."""
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for shift, (task, batches) in enumerate(BATCHES.items()):
        tokens = torch.randint(0, 40, (batches * batch_size, num_tokens), generator=generator)
        counts = torch.stack([(tokens == k).sum(1) for k in range(10)], dim=1)
        labels = (counts.argmax(1) + shift) % 10
        found[task] = DataLoader(TensorDataset(tokens, labels), batch_size, shuffle=True)
    return found


@contextmanager
def booked(owner: type, name: str, seconds: defaultdict[str, float], part: str) -> Iterator[None]:
    """Book this thread's time in a method to a part."""
    method: Callable[..., Any] = getattr(owner, name)

    @wraps(method)
    def timed(*args: Any, **options: Any) -> Any:
        start = time.thread_time()
        try:
            return method(*args, **options)
        finally:
            seconds[part] += time.thread_time() - start

    setattr(owner, name, timed)
    try:
        yield
    finally:
        setattr(owner, name, method)


@dataclass(frozen=True, kw_only=True)
class Row:
    """A run: seconds of the training thread, shares of them, steps and decisions.

    Args:
        width: of the encoder.
        seed: of data and order.
        seconds: whole run.
        steps: optimizer steps.
        decisions: how often shares and plans were solved.
        parts: share of `seconds` by part, in [0, 1].
    """

    width: int
    seed: int
    seconds: float
    steps: int
    decisions: int
    parts: dict[str, float]


def measure(width: int, seed: int, epoch_batches: int, passes: int) -> Row:
    """One run."""
    pl.seed_everything(seed, verbose=False)
    tasks = TaskSettings(epoch_batches=epoch_batches)
    balancer = AttentionBalancer("50%", tasks=tasks, seed=seed)
    seconds: defaultdict[str, float] = defaultdict(float)
    epochs = passes * sum(BATCHES.values()) // epoch_batches
    model, data = ManyHeads(width), loaders(seed)
    with tempfile.TemporaryDirectory() as folder:
        job = trainer([balancer], Path(folder), max_epochs=epochs)
        with ExitStack() as stack:
            watched: list[tuple[type, str, str]] = [
                (AffinityMeter, "see", "affinities"),
                (TaskPlans, "solve", "decisions"),
                (TaskLoader, "_serve", "serving and loaders"),
                (TaskStream, "__next__", "loaders"),
                *((AttentionBalancer, f"on_{hook}", "hooks") for hook in HOOKS),
            ]
            for owner, name, part in watched:
                stack.enter_context(booked(owner, name, seconds, part))
            start = time.thread_time()
            job.fit(model, data)
            whole = time.thread_time() - start
    seconds["serving"] = seconds["serving and loaders"] - seconds["loaders"]
    return Row(
        width=width,
        seed=seed,
        seconds=round(whole, 1),
        steps=job.global_step,
        decisions=len(balancer.history) // len(BATCHES),
        parts={part: float(f"{seconds[part] / whole:.3g}") for part in PARTS},
    )


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--widths", type=int, nargs="+", default=[128, 384], metavar="W")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS), metavar="S")
    parser.add_argument("--epoch-batches", type=int, default=60, help="between two decisions")
    parser.add_argument("--passes", type=int, default=4, help="over the data")
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    rows: list[Row] = []
    for width, seed in track(list(product(options.widths, options.seeds)), "Runs"):
        rows.append(measure(width, seed, options.epoch_batches, options.passes))
        write_record(options.out, summary(rows, options))
    table = Table("width", "seed", "CPU s", "steps", "decisions", *PARTS)
    for row in rows:
        figures = (f"{share:.2%}" for share in row.parts.values())
        about = (row.width, row.seed, row.seconds, row.steps, row.decisions)
        table.add_row(*map(str, about), *figures)
    Console().print(table)


def summary(rows: Sequence[Row], options: argparse.Namespace) -> dict[str, Any]:
    """The runs so far, and medians over the seeds."""
    medians = {
        str(width): {
            part: statistics.median(r.parts[part] for r in rows if r.width == width)
            for part in PARTS
        }
        for width in sorted({row.width for row in rows})
    }
    runs = [asdict(row) for row in rows]
    settings = {"epoch_batches": options.epoch_batches, "passes": options.passes}
    return {**settings, "medians": medians, "rows": runs}


if __name__ == "__main__":
    main()
