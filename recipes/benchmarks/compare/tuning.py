"""Learning rates: every arm gets as many tries, on rows that no test set holds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from statistics import fmean

from recipes.benchmarks.compare.arms import ARMS
from recipes.benchmarks.compare.job import FOLDER, Job
from recipes.benchmarks.compare.tasks import TASKS

DEV_SEED = 100
_TRIES = (0.5, 1.0, 2.0)
_BEYOND = 3  # further tries at most


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

    Tries with other settings of arm or task do not count, nor rates tried on fewer budgets.
    """
    scores = _tried(task, arm)
    most = max(map(len, scores.values()), default=0)
    means = {lr: fmean(s.values()) for lr, s in scores.items() if len(s) == most}
    return max(means, key=lambda lr: means[lr]) if means else grid(task, arm)[1]


def beyond_the_edge(task: str, arm: str, budgets: Sequence[str]) -> float | None:
    """The rate to try next: half or twice the best one, where that is the least or largest tried.

    None where the best of the rates that were tried on all these budgets has tries on both sides,
    or after three tries beyond the grid.
    """
    scores = _tried(task, arm)
    means = {lr: fmean(s[b] for b in budgets) for lr, s in scores.items() if set(budgets) <= set(s)}
    if not means or len(means) >= len(_TRIES) + _BEYOND:
        return None
    best = max(means, key=lambda lr: means[lr])
    factor = {min(means): 0.5, max(means): 2.0}.get(best)
    return None if factor is None else float(f"{best * factor:.3g}")


def _tried(task: str, arm: str) -> dict[float, dict[str, float]]:
    """Rate → budget → score of the dev runs that are of the arm and task as they are."""
    scores: dict[float, dict[str, float]] = {}
    for path in sorted((FOLDER / task / "dev").glob(f"{arm}-*.json")):
        result = json.loads(path.read_text())
        job = Job(**{name: result[name] for name in Job.__dataclass_fields__})
        if job.path == path and job.arm == arm and job.seed == DEV_SEED:
            scores.setdefault(job.lr, {})[job.budget] = result["scores"][TASKS[task].metric]
    return scores
