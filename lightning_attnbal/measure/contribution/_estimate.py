"""A mean with its uncertainty, one value at a time and across ranks."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Contribution:
    """Mean of the estimates for one unit, with its uncertainty.

    Args:
        mean: loss decrease per unit of learning rate; for the comparison meters, in their own unit.
        std_error: standard error of the mean; inf for fewer than two estimates.
        count: how many estimates it rests on.

    Example:
        >>> Contribution(mean=0.5, std_error=0.1, count=4).mean
        0.5
    """

    mean: float
    std_error: float
    count: int


@dataclass(frozen=True, slots=True)
class Moments:
    """Count, mean and sum of squared deviations of the values seen so far.

    Source:
        Welford, "Note on a Method for Calculating Corrected Sums of Squares and Products",
        Technometrics 1962; Chan, Golub, LeVeque, "Updating Formulae and a Pairwise Algorithm for
        Computing Sample Variances", 1979, for `merged`.

    Example:
        >>> Moments().plus(1.0).plus(3.0)
        Moments(count=2, mean=2.0, square=2.0)
        >>> Moments().plus(1.0).merged(Moments().plus(3.0))
        Moments(count=2, mean=2.0, square=2.0)
    """

    count: int = 0
    mean: float = 0.0
    square: float = 0.0

    def plus(self, value: float) -> Moments:
        """With one value more."""
        delta = value - self.mean
        mean = self.mean + delta / (self.count + 1)
        return Moments(self.count + 1, mean, self.square + delta * (value - mean))

    def merged(self, other: Moments) -> Moments:
        """With all the values that `other` has seen."""
        count = self.count + other.count
        if count == 0:
            return self
        delta = other.mean - self.mean
        mean = self.mean + delta * other.count / count
        square = self.square + other.square + delta**2 * self.count * other.count / count
        return Moments(count, mean, square)

    def contribution(self) -> Contribution:
        """The mean and its standard error; needs one value at least."""
        n = self.count
        error = math.sqrt(self.square / (n - 1) / n) if n > 1 else math.inf
        return Contribution(self.mean, error, n)


def merge_moments(tables: Iterable[dict[str, list[float]]]) -> dict[str, list[float]]:
    """Per unit the moments of all tables together, as plain lists.

    Example:
        >>> merge_moments([{"a": [1, 1.0, 0.0]}, {"a": [1, 3.0, 0.0], "b": [1, 5.0, 0.0]}])
        {'a': [2, 2.0, 2.0], 'b': [1, 5.0, 0.0]}
    """
    merged: dict[str, Moments] = {}
    for table in tables:
        for unit, (count, mean, square) in table.items():
            new = Moments(int(count), float(mean), float(square))
            merged[unit] = merged.get(unit, Moments()).merged(new)
    return {unit: [m.count, m.mean, m.square] for unit, m in merged.items()}
