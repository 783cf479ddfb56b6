"""What a step of a task is worth, unit by unit, when little was measured yet."""

from __future__ import annotations

from collections.abc import Mapping

from lightning_attnbal.measure import Contribution

Pairs = Mapping[tuple[str, str], Mapping[str, Contribution]]


def task_worth(
    pairs: Pairs, task: str, weights: Mapping[str, float], *, half: float = 16.0
) -> dict[str, float]:
    """Contribution of each unit to a step of `task`: shrunk to all tasks', and these to all equal.

    With v_ik(u) what a step of task i does for task k in unit u, V(u) = Σ_k w_k v_ik(u) what it
    does for all of them, V̄ its profile (Σ_u V̄(u) = 1), Q̄ the profile of the steps of every task
    together, and E equal parts,

        value(u) = T · (λ · V̄(u) + (1 − λ) · (μ · Q̄(u) + (1 − μ) · E(u))),
        λ = n / (n + half),  μ = m / (m + half),

    n the number of estimates per pair of task i, m that of all tasks together, and T = Σ_u V(u), or
    the tasks' mean where that is not above 0. Negative sums count as 0. Tasks share their lower
    units, and a few estimates would order them by noise. Units of which nothing is known are
    missing.

    Args:
        pairs: of `AffinityMeter.estimates`.
        task: who takes the step.
        weights: task → weight of its gain, in (0, inf).
        half: estimates at which a task's own profile counts half, in (0, inf).

    Source: own; James, Stein, "Estimation with quadratic loss", 1961, for the idea of shrinking.

    Example:
        >>> pairs = {
        ...     ("a", "a"): {"low": Contribution(3.0, 0.1, 16), "head": Contribution(1.0, 0.1, 16)},
        ...     ("b", "b"): {"low": Contribution(1.0, 0.1, 16), "head": Contribution(3.0, 0.1, 16)},
        ... }
        >>> task_worth(pairs, "a", {"a": 1.0, "b": 1.0})
        {'low': 2.5, 'head': 1.5}
        >>> task_worth({("a", "a"): {"low": Contribution(1.0, 0.1, 0)}}, "a", {"a": 1.0})
        {'low': 1.0}
    """
    by_task = {i: _credited(pairs, i, weights) for i in weights}
    pooled: dict[str, float] = {}
    for credited in by_task.values():
        for unit, value in credited.items():
            pooled[unit] = pooled.get(unit, 0.0) + value
    own, counts = by_task[task], {i: _count(pairs, i) for i in weights}
    total = sum(own.values()) or sum(pooled.values()) / max(1, len(by_task))
    mine, ours, even = _profile(own), _profile(pooled), 1 / max(1, len(pooled))
    trust = _trust(counts[task], half) if sum(own.values()) > 0 else 0.0
    trust_ours = _trust(sum(counts.values()), half)
    return {
        unit: total
        * (
            trust * mine.get(unit, 0.0)
            + (1 - trust) * (trust_ours * share + (1 - trust_ours) * even)
        )
        for unit, share in ours.items()
    }


def _trust(count: int, half: float) -> float:
    return count / (count + half)


def _credited(pairs: Pairs, task: str, weights: Mapping[str, float]) -> dict[str, float]:
    """Σ_k w_k v(u), not below 0."""
    sums: dict[str, float] = {}
    for other, weight in weights.items():
        for unit, found in pairs.get((task, other), {}).items():
            sums[unit] = sums.get(unit, 0.0) + weight * found.mean
    return {unit: max(0.0, value) for unit, value in sums.items()}


def _count(pairs: Pairs, task: str) -> int:
    found = [c.count for (i, _), units in pairs.items() if i == task for c in units.values()]
    return max(found, default=0)


def _profile(values: Mapping[str, float]) -> dict[str, float]:
    total = sum(values.values())
    return {unit: value / total if total else 0.0 for unit, value in values.items()}
