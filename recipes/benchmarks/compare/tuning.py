"""Learning rates: every arm gets as many tries, on rows that no test set holds."""

from __future__ import annotations

import json

from recipes.benchmarks.compare.arms import ARMS
from recipes.benchmarks.compare.job import FOLDER, Job
from recipes.benchmarks.compare.tasks import TASKS

DEV_SEED = 100
_TRIES = (0.5, 1.0, 2.0)


def grid(task: str, arm: str) -> list[float]:
    """The rates to try for an arm.

    Example:
        >>> grid("banking77", "full")
        [0.0004, 0.0008, 0.0016]
    """
    middle = TASKS[task].base_lr * ARMS[arm].lr_factor
    return [float(f"{middle * factor:.3g}") for factor in _TRIES]


def tuned_rate(task: str, arm: str) -> float:
    """The best rate of an arm's dev runs, averaged over the budgets tried; else its middle one.

    Tries of another revision of arm or task do not count, nor rates tried on fewer budgets.
    """
    scores: dict[float, list[float]] = {}
    for path in sorted((FOLDER / task / "dev").glob(f"{arm}-*.json")):
        result = json.loads(path.read_text())
        job = Job(**{name: result[name] for name in Job.__dataclass_fields__})
        if job.path == path and job.arm == arm and job.seed == DEV_SEED:
            scores.setdefault(job.lr, []).append(result["scores"][TASKS[task].metric])
    most = max(map(len, scores.values()), default=0)
    means = {lr: sum(s) / len(s) for lr, s in scores.items() if len(s) == most}
    return max(means, key=lambda lr: means[lr]) if means else grid(task, arm)[1]
