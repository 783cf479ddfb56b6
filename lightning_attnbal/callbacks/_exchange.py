"""What a loss is worth in the metric that a user wants."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np

_LEAST = 3  # points before a slope is believed


def exchange_rate(
    losses: Sequence[float], scores: Sequence[float], direction: Literal["max", "min"]
) -> float | None:
    """Metric gained per loss lost: the slope of the scores on the losses, its sign turned to gain.

    Least squares over the validations so far. None before three of them, where losses did not
    differ, or where the metric got worse as the loss fell.

    Args:
        losses: (V,) training loss when each validation ran.
        scores: (V,) the metric then.
        direction: whether more or less of the metric is better.

    Example:
        >>> exchange_rate([1.0, 0.5, 0.25], [0.2, 0.6, 0.8], "max")
        0.8
    """
    pairs = [(x, y) for x, y in zip(losses, scores, strict=True) if math.isfinite(x + y)]
    if len(pairs) < _LEAST or len({x for x, _ in pairs}) < 2:
        return None
    x, y = np.array(pairs).T
    slope = float(np.polyfit(x, y, 1)[0])
    rate = -slope if direction == "max" else slope
    return round(rate, 12) if rate > 0 else None
