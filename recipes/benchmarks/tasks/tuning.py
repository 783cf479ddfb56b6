"""Learning rates: as many tries for each way of training, on rows and a seed of their own."""

from __future__ import annotations

import json

from recipes.benchmarks.tasks.arms import ARMS
from recipes.benchmarks.tasks.job import DEV_SEED, FOLDER, Job
from recipes.benchmarks.tasks.suites import SUITES

TRIES = (0.5, 1.0, 2.0)
"""Factors of the suite's rate."""


def grid(suite: str) -> list[float]:
    """The rates to try.

    Example:
        >>> grid("reviews")
        [0.0002, 0.0004, 0.0008]
    """
    return [float(f"{SUITES[suite].lr * factor:.3g}") for factor in TRIES]


def tuned_rate(suite: str, arm: str) -> float:
    """The rate of best mean macro-F1, over tasks and over the budgets of the dev runs.

    Rates tried on fewer budgets than others do not count; the suite's own where none was tried.

    Raises:
        RuntimeError: a try is still running, so that another rate may yet be the best.
    """
    tuned = ARMS[arm].tuned_as or arm
    tries = FOLDER / suite / "dev"
    if running := sorted(path.name for path in tries.glob(f"{tuned}-*-s{DEV_SEED}-*.running")):
        msg = (
            f"Expected all tries of {tuned!r} on {suite!r} to be over, but found {running} in "
            f"{tries}. Wait for them; delete what an interrupted process left, and tune again."
        )
        raise RuntimeError(msg)
    scores: dict[float, list[float]] = {}
    for path in sorted(tries.glob(f"{tuned}-*-s{DEV_SEED}-*.json")):
        run = json.loads(path.read_text(encoding="utf-8"))
        job = Job(**{name: run[name] for name in Job.__dataclass_fields__})
        if job.path == path and job.arm == tuned:
            values = [v for name, v in run["scores"].items() if name.endswith("/macro_f1")]
            scores.setdefault(job.lr, []).append(sum(values) / len(values))
    most = max(map(len, scores.values()), default=0)
    means = {lr: sum(s) / most for lr, s in scores.items() if len(s) == most}
    return max(means, key=lambda lr: means[lr]) if means else SUITES[suite].lr
