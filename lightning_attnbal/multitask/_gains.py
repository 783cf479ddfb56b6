"""What a task gets out of steps under a plan: from a forecast of its loss to a gain."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from copy import copy
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
        helped: own steps that those of other tasks stood for so far; may be negative.
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
    scale: float = 1.0
    prior: CurvePrior = field(default_factory=CurvePrior)
    has_end: bool = False

    def __post_init__(self) -> None:
        check_integer("epoch_steps", self.epoch_steps, low=1)
        check_number("helped", self.helped)
        check_number("scale", self.scale, low=0, low_open=True)


class ForecastGain(PlanGain):
    """The gain of n steps under a plan: G(n + c) = (L(0) - L(n')) / scale + ε · W · n / (n + e).

    L is the task's forecast loss (`Forecast`, fitted to its own losses over its own steps) and c
    the own steps that those of other tasks will stand for. So far others made each own step worth
    m = 1 + helped / own of them, so the curve is one in such steps, and n' = (n + c) / m. Where
    harm outweighs the own steps, n' < 0, the loss rises by what |n'| steps would take off it.
    W in [0, 1] is the share of the contribution that the plan trains, e = epoch_steps, ε = 0.001:
    where losses stopped telling plans apart, what budget there is goes to the deeper one. A plan
    that freezes a unit which was never trained gains -inf.

    A function of a plan and an array of steps (N,), to gains (N,); it answers for many plans at
    once, too. `beside` says what the others do.

    Args:
        problem: the task's menus and contributions.
        outlook: the task's run so far.

    Example:
        >>> from lightning_attnbal.core import FROZEN, FULL, Menu, Option
        >>> menu = (Option(level=FROZEN, cost=1), Option(level=FULL, cost=2, cost_above=1, value=3))
        >>> problem = Problem((Menu("low", menu), Menu("high", menu)))
        >>> gain = ForecastGain(problem, Outlook(progress=Progress(), epoch_steps=100))
        >>> few, many = gain((FROZEN, FULL), np.array([10.0, 200.0]))
        >>> bool(few < many)
        True
    """

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
        self._coming, self._is_on_top = 0.0, False
        self._credit = np.zeros(len(problem.menus))

    def beside(
        self,
        coming: float,
        credit: Mapping[str, float] | None = None,
        *,
        is_on_top: bool = False,
    ) -> ForecastGain:
        """The same task beside others: another gain of the same forecast.

        Args:
            coming: c; may be negative.
            credit: unit → gain of the other tasks for each step in which it trains, in this task's
                measure; added, n times for each unit that trains.
            is_on_top: whether to count only what own steps add to the others': G(n + c) - G(c).

        Example:
            >>> from lightning_attnbal.core import FULL, Menu, Option
            >>> problem = Problem((Menu("head", (Option(level=FULL, cost=2, value=1),)),))
            >>> alone = ForecastGain(problem, Outlook(progress=Progress(), epoch_steps=100))
            >>> helps = alone.beside(0.0, {"head": 0.25})
            >>> (helps((FULL,), np.array([8.0])) - alone((FULL,), np.array([8.0]))).tolist()
            [2.0]
        """
        check_number("coming", coming)
        found = copy(self)
        found._coming, found._is_on_top = coming, is_on_top
        given = credit or {}
        found._credit = np.array([given.get(m.unit, 0.0) for m in self._problem.menus])
        return found

    def without_credit(self) -> ForecastGain:
        """The same, without what other tasks get out of its steps."""
        return self.beside(self._coming, is_on_top=self._is_on_top)

    @override
    def table(self, plans: Sequence[Levels], values: Array, steps: Array) -> Array:
        trained = self._trains(plans)
        found = self._falls(trained, np.append(steps + self._coming, self._coming))
        found = found[:, :-1] - found[:, -1:] if self._is_on_top else found[:, :-1]
        found += np.outer(trained @ self._credit, steps)
        if self._most > 0:
            spread = steps / (steps + self._outlook.epoch_steps)
            found += _TIE * np.outer(values / self._most, spread)
        found[(self._must_train & ~trained).any(axis=1)] = -math.inf
        return found

    def _falls(self, trained: NDArray[np.bool_], steps: Array) -> Array:
        """(P, N) by how much the loss falls, over the scale."""
        wanted = np.abs(steps) / self._worth
        grid = np.geomspace(1.0, 1.0 + float(wanted.max(initial=0.0)), _POINTS) - 1.0
        sets, which = np.unique(trained, axis=0, return_inverse=True)
        curves = self._forecast.means(sets, grid)
        ahead = np.array([np.interp(wanted, grid, curve) for curve in curves])
        found: Array = np.sign(steps) * (self._now - ahead) / self._outlook.scale
        return found[which.reshape(-1)]

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
