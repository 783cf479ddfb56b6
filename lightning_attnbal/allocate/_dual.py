"""Lagrangian dual: what a plan is worth after paying λ per unit of cost and μ per byte."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from lightning_attnbal.allocate._trellis import OPEN, PASSED, PIVOT, Array, Indices, Trellis, scan

_GRID = np.concatenate([[0.0], np.geomspace(1e-5, 1e5, 20)])
_ZOOMS = 3
_AROUND = np.geomspace(1 / 16, 4, 13)


ROUNDING = 1e-12
"""Relative error of sums in different order; a difference below it counts as none."""


@dataclass(frozen=True, slots=True)
class Limit:
    """What a plan may use: cost per step, and bytes per task (None: any)."""

    cost: float
    memory: float | None = None

    @property
    def bytes(self) -> float:
        """The memory limit as a number, infinite where there is none."""
        return np.inf if self.memory is None else self.memory

    def allows(self, figures: tuple[float, float, float]) -> bool:
        """Whether (cost, value, memory) keeps the limits."""
        return figures[0] <= self.cost and figures[2] <= self.bytes


@dataclass(frozen=True, eq=False)
class Dual:
    """Upper bounds from J multiplier pairs, sorted by λ.

    For any λ, μ ≥ 0 no plan within the limits is worth more than λ · (B - fixed) + μ · Σ_i (M -
    fixed memory of i) + rest, where rest is the best Σ value - λ · cost - μ · memory, found by one
    scan of the trellis.

    Args:
        lam: (J,), value per unit of cost.
        mu: (J,), value per byte.
        rest: (3, T, U + 1, J), what is left to gain in each state (see `scan`).
        later: (T + 1, J), what tasks i, i + 1, … can gain.
        bounds: (J,), the upper bound that each pair proves.

    Source: Fisher, "The Lagrangian relaxation method for solving integer programming problems",
        1981, eq. (2).
    """

    lam: Array
    mu: Array
    rest: Array
    later: Array
    bounds: Array

    @classmethod
    def evaluate(cls, trellis: Trellis, limit: Limit, lam: Array, mu: Array) -> Dual:
        """Scan the trellis once for all multiplier pairs."""
        order = np.lexsort((mu, lam))
        lam, mu = lam[order], mu[order]
        rest = scan(best_arcs(trellis, lam, mu)[0])
        slack = 0.0 if limit.memory is None else limit.memory - trellis.fixed_memory
        own = rest[OPEN, :, -1] + np.broadcast_to(slack, trellis.fixed_memory.shape)[:, None] * mu
        later = np.zeros((len(own) + 1, len(lam)))
        later[:-1] = own[::-1].cumsum(axis=0)[::-1]
        return cls(lam, mu, rest, later, lam * (limit.cost - trellis.fixed) + later[0])

    @property
    def best(self) -> int:
        """Index of the pair with the smallest bound."""
        return int(self.bounds.argmin())


def best_arcs(trellis: Trellis, lam: Array, mu: Array) -> tuple[Array, Indices]:
    """Value of the best option of each arc after paying, and which it is, (K, T, U, J).

    Only `ABOVE` and `PIVOT` have more than one option to choose from.
    """

    def reduce(value: Array, cost: Array, memory: Array) -> Array:
        gain = value[..., None] - cost[..., None] * lam
        return gain - memory[..., None] * mu if mu.any() else gain

    tables = trellis.value, trellis.cost, trellis.memory
    many = reduce(*(table[: PIVOT + 1] for table in tables))
    one = reduce(*(_take(table[PASSED:], trellis.lone) for table in tables))
    choice = many.argmax(axis=3)
    best = np.take_along_axis(many, choice[:, :, :, None], axis=3)[:, :, :, 0]
    lone = np.broadcast_to(trellis.lone[..., None], one.shape)
    return np.concatenate([best, one]), np.concatenate([choice, lone])


def _take(table: Array, choice: Indices) -> Array:
    """Entries of (K, T, U, L) at (K, T, U)."""
    taken: Array = np.take_along_axis(table, choice[..., None], axis=3)[..., 0]
    return taken


def minimise(trellis: Trellis, limit: Limit) -> Dual:
    """The dual near its minimum: a wide grid, then finer ones around the best λ and μ."""
    finite = trellis.value[np.isfinite(trellis.value)]
    scale = float(np.ptp(finite)) or 1.0

    def at(lam: Array, mu: Array) -> Dual:
        """All pairs of a λ and a μ, both rising."""
        return Dual.evaluate(trellis, limit, lam.repeat(len(mu)), np.tile(mu, len(lam)))

    zero = np.zeros(1)
    unit = scale / _typical(trellis.cost)
    lams = _zoom(lambda lam: at(lam, zero).bounds, unit)
    if limit.memory is None:
        return at(lams, zero)
    few = np.append(zero, (lams[-1] or unit) * _AROUND[::2])
    mus = _zoom(
        lambda mu: at(few, mu).bounds.reshape(len(few), -1).min(axis=0),
        scale / _typical(trellis.memory),
    )
    some = mus[-1] * _AROUND[::2]
    pairs = [(lams, np.zeros_like(lams)), (few.repeat(len(some)), np.tile(some, len(few)))]
    return Dual.evaluate(
        trellis, limit, *(np.concatenate(part) for part in zip(*pairs, strict=True))
    )


def _typical(amount: Array) -> float:
    """A typical positive amount, 1 if all are zero."""
    positive = amount[amount > 0]
    return float(np.median(positive)) if positive.size else 1.0


def _zoom(bound: Callable[[Array], Array], scale: float) -> Array:
    """Grid points around the minimum of a convex function on [0, inf), the best one last."""
    grid = _GRID * scale
    kept = []
    for _ in range(_ZOOMS):
        i = int(bound(grid).argmin())
        low, high = grid[max(0, i - 1)], grid[min(len(grid) - 1, i + 1)]
        kept.append(grid[max(0, i - 1) : i + 2])
        best = grid[i]
        grid = np.linspace(low, high, 10)
    kept.append(best * _AROUND)
    return np.append(np.unique(np.concatenate(kept)), best)


def is_proven(value: float, bound: float) -> bool:
    """Whether the bound leaves nothing to gain, up to rounding."""
    return bound <= value + ROUNDING * abs(value)
