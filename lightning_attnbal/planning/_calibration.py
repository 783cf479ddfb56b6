"""How long everything trains before the first decision."""

from __future__ import annotations

import math

from lightning_attnbal.core import Dimension

CALIBRATION_STEPS = 4
_SHARE = 0.05
_STEPS_TO_TIME = 3  # the first is slower than the rest


def calibration_steps(
    affordable: float, dimension: Dimension, wanted: int = CALIBRATION_STEPS
) -> int:
    """Steps that train everything first: a twentieth of the budget at most, and at least one.

    Args:
        affordable: such steps that the whole budget buys, in [0, inf).
        dimension: of the budget; to time steps takes three.
        wanted: at most so many, in [1, inf).

    Example:
        >>> calibration_steps(1000.0, Dimension.FLOP), calibration_steps(40.0, Dimension.FLOP)
        (4, 2)
    """
    fewest = 1 if dimension is Dimension.FLOP else _STEPS_TO_TIME
    return max(fewest, min(wanted, math.floor(_SHARE * affordable)))
