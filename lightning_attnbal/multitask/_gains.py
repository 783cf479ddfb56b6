"""What a task gets out of steps under a plan: from a forecast of its loss to a gain."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from lightning_attnbal.allocate import CurvePrior, Forecast, Progress
from lightning_attnbal.core import Problem, check_integer, check_number
from lightning_attnbal.multitask._joint_terms import Array, Levels, PlanGain

_POINTS = 12
_TIE = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """What is known of a task when steps are to be shared out.

    Args:
        progress: its own steps so far and their losses.
        epoch_steps: optimizer steps of one pass over its data, in [1, inf).
        helped: own steps that those of other tasks stood for so far, by affinity; may be negative.
        coming: the same for the steps to come, as the shares stand.
        scale: loss that counts as 1, in (0, inf): gains of tasks are compared in it.
        prior: what is believed about learning curves.
        has_end: whether the user's own run has one.

    Raises:
        ValueError: a number is out of range.

    Example:
        >>> Outlook(progress=Progress(), epoch_steps=50).scale
        1.0
    """

    progress: Progress
    epoch_steps: int
    helped: float = 0.0
    coming: float = 0.0
    scale: float = 1.0
    prior: CurvePrior = field(default_factory=CurvePrior)
    has_end: bool = False

    def __post_init__(self) -> None:
        check_integer("epoch_steps", self.epoch_steps, low=1)
        check_number("helped", self.helped)
        check_number("coming", self.coming)
        check_number("scale", self.scale, low=0, low_open=True)


def forecast_gain(problem: Problem, outlook: Outlook) -> PlanGain:
    """The gain of n steps under a plan: (L(0) − L(n′)) / scale + ε · W · n / (n + epoch_steps).

    L is the task's forecast loss (`Forecast`, fitted to its own losses over its own steps). Steps
    of other tasks help: so far they made each own step worth m = 1 + helped / own of them, so the
    curve is one in such steps, and n′ = max(0, n + coming) / m. W in [0, 1] is the share of the
    contribution that the plan trains, and ε = 0.001: where losses stopped telling plans apart, what
    budget there is goes to the deeper one. A plan that freezes a unit which was never trained gains
    −inf.

    Args:
        problem: the task's menus and contributions.
        outlook: the task's run so far.

    Returns:
        A function of a plan and an array of steps (N,), to gains (N,); it answers for many plans at
        once, too.

    Example:
        >>> from lightning_attnbal.core import FROZEN, FULL, Menu, Option
        >>> menu = (Option(level=FROZEN, cost=1), Option(level=FULL, cost=2, cost_above=1, value=3))
        >>> problem = Problem((Menu("low", menu), Menu("high", menu)))
        >>> gain = forecast_gain(problem, Outlook(progress=Progress(), epoch_steps=100))
        >>> few, many = gain((FROZEN, FULL), np.array([10.0, 200.0]))
        >>> bool(few < many)
        True
    """
    return _ForecastGain(problem, outlook)


class _ForecastGain(PlanGain):
    """See `forecast_gain`."""

    def __init__(self, problem: Problem, outlook: Outlook) -> None:
        self._problem, self._outlook = problem, outlook
        self._forecast = Forecast(
            problem,
            outlook.progress,
            outlook.epoch_steps,
            outlook.prior,
            has_end=outlook.has_end,
        )
        must_train = outlook.progress.must_train(problem)
        self._must_train = np.array([menu.unit in must_train for menu in problem.menus])
        own = outlook.progress.steps
        self._worth = max(0.1, 1 + outlook.helped / own) if own else 1.0
        self._now = self._forecast((), 0.0).mean
        self._most = sum(max(option.value for option in menu.options) for menu in problem.menus)

    @override
    def table(self, plans: Sequence[Levels], values: Array, steps: Array) -> Array:
        trained = self._trains(plans)
        wanted = np.maximum(0.0, steps + self._outlook.coming) / self._worth
        grid = np.geomspace(1.0, 1.0 + float(wanted.max(initial=0.0)), _POINTS) - 1.0
        sets, which = np.unique(trained, axis=0, return_inverse=True)
        curves = self._forecast.means(sets, grid)
        ahead = np.array([np.interp(wanted, grid, curve) for curve in curves])
        found: Array = ((self._now - ahead) / self._outlook.scale)[which.reshape(-1)]
        if self._most > 0:
            spread = steps / (steps + self._outlook.epoch_steps)
            found += _TIE * np.outer(values / self._most, spread)
        found[(self._must_train & ~trained).any(axis=1)] = -math.inf
        return found

    def _trains(self, plans: Sequence[Levels]) -> NDArray[np.bool_]:
        """(P, U), asking each level object once: there are few, in many plans."""
        found = {id(level): level for plan in plans for level in plan}
        trained = {key: level.is_trained for key, level in found.items()}
        return np.array([[trained[id(level)] for level in plan] for plan in plans])

    @override
    def __call__(self, levels: Levels, steps: Array) -> Array:
        value = self._problem.evaluate(levels)[1]
        found: Array = self.table([levels], np.array([value]), steps)[0]
        return found


def help_from_others(
    task: str, steps: Mapping[str, float], affinity: Mapping[tuple[str, str], float]
) -> float:
    """Own steps that the steps of other tasks stand for: Σ_{k ≠ task} A(k, task) · n_k.

    Args:
        task: who is helped.
        steps: task → steps n_k.
        affinity: (k, task) → A in [−1, 1]; what is missing or NaN counts as 0.

    Example:
        >>> help_from_others("a", {"a": 10, "b": 4}, {("b", "a"): 0.5})
        2.0
    """
    pairs = ((affinity.get((k, task), math.nan), n) for k, n in steps.items() if k != task)
    return float(sum(a * n for a, n in pairs if not math.isnan(a)))
