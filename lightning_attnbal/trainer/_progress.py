"""The share of the budget that is spent."""

from __future__ import annotations

import math


def clip_progress(progress: float) -> float:
    """`progress` clipped to [0, 1]: the last step may overshoot the budget a little.

    Raises:
        ValueError: `progress` is NaN.
    """
    if math.isnan(progress):
        msg = "Expected `progress` to be in [0, 1], but got nan."
        raise ValueError(msg)
    return min(max(progress, 0.0), 1.0)
