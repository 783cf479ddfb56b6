"""Estimates per pair of tasks and unit, summed and normalised into a matrix of affinities."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from itertools import permutations
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lightning_attnbal.measure import Contribution

Estimates = Mapping[tuple[str, str], Mapping[str, Contribution]]
"""v by (task i that steps, task k that gains) and unit."""


class Affinity(NamedTuple):
    """Affinities of T tasks with their standard errors, both of shape (T, T).

    Attributes:
        matrix: row i, column k: what a step of task i does for task k; in [−1, 1], NaN if unknown.
        errors: in [0, inf], NaN where the matrix is.
    """

    matrix: NDArray[np.float64]
    errors: NDArray[np.float64]


def affinity_matrix(
    estimates: Estimates, tasks: Sequence[str], units: Collection[str] | None = None
) -> Affinity:
    """What a step of one task does for another, as a share of what their own steps do for them.

    A_ik = v_ik / sqrt(v_ii · v_kk), v summed over the units of which v_ik, v_ii and v_kk are all
    known; clipped to [−1, 1]. For SGD it is the cosine of the two expected gradients, for Adam that
    in the geometry of its second moment. NaN where no unit is known, or v_ii ≤ 0 or v_kk ≤ 0 (the
    task has nothing to gain there, or noise hides it). Not clipped before averaging, so not biased
    by that; a ratio of means is, by second order of the errors.

    The error is Σ_unit std_error(v_ik) / sqrt(v_ii · v_kk): an upper bound for the numerator's,
    reached where the noise of all units moves together, as residuals of a batch make it do. The
    error of the denominator is left out. inf where a unit has fewer than two estimates.

    Args:
        estimates: of `AffinityMeter.estimates`.
        tasks: order of rows and columns, T names.
        units: only these; None for all of them.

    Source:
        Yu et al., "Gradient Surgery for Multi-Task Learning", NeurIPS 2020 (conflict = negative
        cosine); debiased by batches of its own for each factor, which is ours.

    Example:
        >>> v = {
        ...     ("a", "a"): {"low": Contribution(4.0, 0.1, 9)},
        ...     ("b", "b"): {"low": Contribution(1.0, 0.1, 9), "head": Contribution(5.0, 0.1, 9)},
        ...     ("a", "b"): {"low": Contribution(-1.0, 0.2, 9)},
        ... }
        >>> found = affinity_matrix(v, ["a", "b"])
        >>> found.matrix.tolist()
        [[1.0, -0.5], [nan, 1.0]]
        >>> round(float(found.errors[0, 1]), 3)
        0.1
    """
    pairs = [[_normalised(estimates, i, k, units) for k in tasks] for i in tasks]
    return Affinity(*np.moveaxis(np.array(pairs, dtype=np.float64), -1, 0))


def step_equivalents(
    estimates: Estimates, tasks: Sequence[str]
) -> dict[tuple[str, str], dict[str, float]]:
    """Own steps of task k that a step of task i stands for, unit by unit: (i, k) → unit → E.

    Σ_u E_ik(u) = Σ_u v_ik(u) / Σ_u v_kk(u), clipped to [-1, 1]: what a step of i takes off the loss
    of k, against what a step of k does, its head included (a task helps others through what they
    share only). The sum is dealt out to the units in proportion to v_ik(u), those of the other sign
    left out, so that a plan of i which trains some of them helps by their part.

    A pair is missing where nothing is known of it: numerator or denominator lie within their error
    (Σ_unit std_error, as in `affinity_matrix`), or k has nothing to gain.

    Args:
        estimates: of `AffinityMeter.estimates`.
        tasks: their names.

    Example:
        >>> v = {
        ...     ("a", "a"): {"low": Contribution(4.0, 0.1, 9)},
        ...     ("b", "b"): {"low": Contribution(1.0, 0.1, 9), "head": Contribution(5.0, 0.1, 9)},
        ...     ("a", "b"): {"low": Contribution(3.0, 0.2, 9)},
        ... }
        >>> step_equivalents(v, ["a", "b"])
        {('a', 'b'): {'low': 0.5}}
    """
    found = {}
    for i, k in permutations(tasks, 2):
        cross, own = estimates.get((i, k), {}), estimates.get((k, k), {})
        done, gained = (sum(c.mean for c in units.values()) for units in (cross, own))
        noise, doubt = (sum(c.std_error for c in units.values()) for units in (cross, own))
        if cross and gained > doubt and abs(done) > noise:
            whole = min(1.0, max(-1.0, done / gained))
            parts = {u: abs(c.mean) for u, c in cross.items() if c.mean * done > 0}
            total = sum(parts.values())
            found[i, k] = {u: whole * part / total for u, part in parts.items()}
    return found


def _normalised(
    estimates: Estimates, i: str, k: str, units: Collection[str] | None
) -> tuple[float, float]:
    """The affinity of one pair and its error."""
    cross, own_i, own_k = (estimates.get(pair, {}) for pair in ((i, k), (i, i), (k, k)))
    shared = [u for u in cross if u in own_i and u in own_k and (units is None or u in units)]
    gain_i, gain_k = (sum(own[u].mean for u in shared) for own in (own_i, own_k))
    if not (gain_i > 0 and gain_k > 0):
        return math.nan, math.nan
    scale = math.sqrt(gain_i) * math.sqrt(gain_k)
    share = sum(cross[u].mean for u in shared) / scale
    return min(1.0, max(-1.0, share)), sum(cross[u].std_error for u in shared) / scale
