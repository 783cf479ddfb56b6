"""Learning rates: every arm gets as many tries, on rows that no test set holds."""

from __future__ import annotations

import json
import math
from fractions import Fraction

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


def tuned_rate(task: str, arm: str, budget: str) -> float:
    """The best rate of an arm's dev runs at the budget nearest by ratio; else its middle one.

    Tries with other settings of arm or task do not count, nor budgets at which fewer rates than
    the grid has were tried.
    """
    scores = {b: s for b, s in _tried(task, arm).items() if len(s) >= len(_TRIES)}
    if not scores:
        return grid(task, arm)[1]
    nearest = min(scores, key=lambda tried: abs(math.log(Fraction(tried) / Fraction(budget))))
    return max(scores[nearest], key=lambda lr: scores[nearest][lr])


def beyond_the_edge(task: str, arm: str, budget: str) -> float | None:
    """The rate to try next: half or twice the best one, where that is the least or largest tried.

    None where the best of the rates that were tried at this budget has tries on both sides, or
    after three tries beyond the grid.
    """
    scores = _tried(task, arm).get(budget, {})
    if not scores or len(scores) >= len(_TRIES) + _BEYOND:
        return None
    best = max(scores, key=lambda lr: scores[lr])
    factor = {min(scores): 0.5, max(scores): 2.0}.get(best)
    return None if factor is None else float(f"{best * factor:.3g}")


def _tried(task: str, arm: str) -> dict[str, dict[float, float]]:
    """Budget → rate → score of the dev runs that are of the arm and task as they are."""
    scores: dict[str, dict[float, float]] = {}
    for path in sorted((FOLDER / task / "dev").glob(f"{arm}-*.json")):
        result = json.loads(path.read_text())
        job = Job(**{name: result[name] for name in Job.__dataclass_fields__})
        if job.path == path and job.arm == arm and job.seed == DEV_SEED:
            scores.setdefault(job.budget, {})[job.lr] = result["scores"][TASKS[task].metric]
    return scores
