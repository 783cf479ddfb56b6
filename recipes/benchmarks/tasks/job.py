"""One run of the comparison."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Hashable
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import lightning.pytorch as pl

from recipes.benchmarks._common import RESULTS, machine, trainer
from recipes.benchmarks.compare._step_costs import batch_shapes
from recipes.benchmarks.compare.reference import count_step, write_whole
from recipes.benchmarks.tasks.arms import ARMS, Arm
from recipes.benchmarks.tasks.suites import SUITES, Suite
from recipes.text import TextTasks, TextTasksData, packaged_encoder

FOLDER = RESULTS / "tasks"
PRECISION = "bf16-mixed"
DEV_SEED = 100


@dataclass(frozen=True, kw_only=True)
class Job:
    """What to run.

    Args:
        suite: name of the suite.
        arm: name of the arm.
        budget: share of the full run's FLOPs, as a fraction such as "1/4".
        seed: of heads, dropout and order of the batches; the same for all arms.
        lr: peak learning rate.
    """

    suite: str
    arm: str
    budget: str
    seed: int
    lr: float

    @property
    def path(self) -> Path:
        """Where the result is kept; another configuration has another file."""
        revisions = (SUITES[self.suite].revision, ARMS[self.arm].revision)
        digest = hashlib.sha256(repr((sorted(asdict(self).items()), revisions)).encode())
        name = f"{self.arm}-{self.budget.replace('/', '_')}-s{self.seed}"
        folder = FOLDER / self.suite / ("dev" if self.seed == DEV_SEED else "test")
        return folder / f"{name}-{digest.hexdigest()[:8]}.json"


def run(job: Job) -> dict[str, Any]:
    """Train, test, and say what it cost; models apart are trained one after the other."""
    suite, arm = SUITES[job.suite], ARMS[job.arm]
    whole = full_flops(suite)
    flops = float(Fraction(job.budget)) * whole
    groups = [(task,) for task in suite.tasks] if arm.is_apart else [suite.tasks]
    parts = [_fit(arm, suite, group, flops / len(groups), job) for group in groups]
    scores = {key: value for part in parts for key, value in part["scores"].items()}
    return {
        **asdict(job),
        "scores": scores,
        "reference_flops": whole,
        "flops": sum(part["flops"] for part in parts),
        "cpu_seconds": sum(part["cpu_seconds"] for part in parts),
        "steps": sum(part["steps"] for part in parts),
        "shares": parts[0]["shares"],
        "decisions": parts[0].get("decisions", []),
        "machine": machine(),
    }


def _fit(arm: Arm, suite: Suite, tasks: tuple[str, ...], flops: float, job: Job) -> dict[str, Any]:
    data = suite.data(job.seed, tasks, arm.mode)
    module = _module(arm.module, data, job.lr, job.seed)
    callbacks = arm.callbacks(flops, job.seed, suite)
    with TemporaryDirectory() as folder:
        fit = trainer(
            callbacks, Path(folder), max_epochs=-1, limit_val_batches=0, precision=PRECISION
        )
        began = time.process_time()
        fit.fit(module, datamodule=data)
        seconds = time.process_time() - began
        rows = data.val_dataloader() if job.seed == DEV_SEED else data.test_dataloader()
        scores = fit.test(module, dataloaders=rows, verbose=False)
    merged = {k.removeprefix("test/"): v for part in scores for k, v in part.items()}
    report = arm.report(callbacks)
    return {**report, "scores": merged, "cpu_seconds": seconds, "steps": fit.global_step}


def _module(kind: type[TextTasks], data: TextTasksData, lr: float, seed: int) -> TextTasks:
    """Heads do not depend on how many tasks there are; the embeddings stay as they are.

    The embeddings' dense update takes as long as several layers and costs no FLOPs, so wall time
    and FLOPs would tell two stories.
    """
    module = kind(packaged_encoder(), data.class_counts, lr=lr)
    module.encoder.embeddings.requires_grad_(requires_grad=False)
    for task, head in module.heads.items():
        pl.seed_everything(seed + sum(map(ord, task)), verbose=False)
        head.reset_parameters()  # type: ignore[operator]  # a linear layer
    pl.seed_everything(seed, verbose=False)
    return module


def full_flops(suite: Suite) -> float:
    """FLOPs of `suite.epochs` passes over every task's data with everything trained; kept."""
    path = FOLDER / suite.name / "reference.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    if known.get("suite") != repr(suite):
        known = {"suite": repr(suite), "flops": suite.epochs * _count_pass(suite)}
        write_whole(path, known)
    return float(known["flops"])


def _count_pass(suite: Suite) -> float:
    """One batch of each shape and task is counted, weighed by how often the shape occurs."""
    data = suite.data(0)
    module = _module(TextTasks, data, suite.lr, seed=0)
    total = 0.0
    for task, loader in data.train_dataloader().items():
        costs: dict[Hashable, float] = {}
        for batch in loader:
            shape = batch_shapes(batch)
            if shape not in costs:
                costs[shape] = count_step(module, {task: batch})
            total += costs[shape]
    return total
