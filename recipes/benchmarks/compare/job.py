"""One run of the comparison, in a process of its own: `python -m recipes.benchmarks.compare.job`.

Reads a job as JSON from standard input and writes its result to the job's file, whole or not at
all.
"""

from __future__ import annotations

import hashlib
import json
import logging
import sys
import tempfile
import time
import warnings
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch

from recipes.benchmarks._bf16 import use_float32_products
from recipes.benchmarks._common import RESULTS, machine, trainer
from recipes.benchmarks.compare.arms import ARMS
from recipes.benchmarks.compare.engagement import Engagement
from recipes.benchmarks.compare.reference import full_flops, write_whole
from recipes.benchmarks.compare.tasks import TASKS

FOLDER = RESULTS / "compare"


@dataclass(frozen=True, kw_only=True)
class Job:
    """What to run.

    Args:
        task: name of the task.
        arm: name of the arm.
        budget: share of the full run's FLOPs, as a fraction such as "1/4".
        seed: of head, dropout and order of the batches; the same for all arms.
        lr: peak learning rate given to the module.
        is_dev: whether rows of the training set stand in for the test set.
    """

    task: str
    arm: str
    budget: str
    seed: int
    lr: float
    is_dev: bool = False

    @property
    def share(self) -> float:
        """The budget as a number."""
        return float(Fraction(self.budget))

    @property
    def path(self) -> Path:
        """Where the result is kept; another configuration of task, arm or job has another file."""
        configuration = (sorted(asdict(self).items()), TASKS[self.task], ARMS[self.arm])
        digest = hashlib.sha256(repr(configuration).encode()).hexdigest()[:8]
        name = f"{self.arm}-{self.budget.replace('/', '_')}-s{self.seed}-{digest}.json"
        return FOLDER / self.task / ("dev" if self.is_dev else "test") / name


class CpuClock(pl.Callback):
    """Processor time of the fit, which other jobs on the machine hardly change."""

    seconds = 0.0
    losses: list[float]

    def on_fit_start(self, *_: Any) -> None:
        """Start."""
        self._start = time.process_time()
        self.losses = []

    def on_train_batch_end(self, _: Any, __: Any, outputs: Any, *___: Any) -> None:
        """Keep the loss."""
        self.losses.append(float(outputs["loss"]))

    def on_train_end(self, *_: Any) -> None:
        """Stop."""
        self.seconds = time.process_time() - self._start


def run(job: Job) -> dict[str, Any]:
    """Train, test, and say what it cost."""
    task, arm = TASKS[job.task], ARMS[job.arm]
    data = task.data(job.seed, is_dev=job.is_dev)
    flops = full_flops(task, job.is_dev, FOLDER / task.name)
    pl.seed_everything(job.seed, verbose=False)
    module = task.module(data, job.lr)
    attached = arm.attach(module, job.share * flops)
    clock, engagement = CpuClock(), Engagement()
    with tempfile.TemporaryDirectory() as folder:
        fit = trainer(
            [clock, *attached.callbacks, engagement],
            Path(folder),
            max_epochs=-1,
            limit_val_batches=0,
            precision=task.precision,
        )
        fit.fit(module, datamodule=data)
        scores = fit.test(module, datamodule=data, verbose=False)[0]
    return {
        **asdict(job),
        "scores": {key.rpartition("/")[2]: value for key, value in scores.items()},
        "reference_flops": flops,
        "cpu_seconds": clock.seconds,
        "steps": len(clock.losses),
        "losses": [round(x, 4) for x in smoothed(clock.losses)],
        **attached.report(),
        "engagement": engagement.report(),
        "machine": machine(),
    }


def smoothed(losses: list[float], points: int = 50) -> list[float]:
    """Means of consecutive stretches.

    Example:
        >>> smoothed([1.0, 3.0, 2.0, 4.0], points=2)
        [2.0, 3.0]
    """
    size = max(1, -(-len(losses) // points))
    chunks = [losses[i : i + size] for i in range(0, len(losses), size)]
    return [sum(chunk) / len(chunk) for chunk in chunks]


def main() -> None:
    """Run the job on standard input."""
    job = Job(**json.loads(sys.stdin.read()))
    torch.set_num_threads(1)
    use_float32_products()
    warnings.filterwarnings("ignore", message=".*does not have many workers")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    write_whole(job.path, run(job))


if __name__ == "__main__":
    main()
