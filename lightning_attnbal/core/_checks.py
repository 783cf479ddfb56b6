"""Argument checks that all say the same kind of sentence: name, accepted range, value found."""

from __future__ import annotations

import math
from collections.abc import Collection


def check_number(
    name: str,
    value: object,
    *,
    low: float = -math.inf,
    high: float = math.inf,
    low_open: bool = False,
    high_open: bool = False,
) -> float:
    """Return `value` as a float if it is a finite number inside the interval.

    Raises:
        TypeError: `value` is not a real number (a bool is not one).
        ValueError: `value` is NaN, infinite or outside the interval.

    Example:
        >>> check_number("floor", 0.1, low=0, high=1)
        0.1
        >>> check_number("floor", 1.4, low=0, high=1, low_open=True)
        Traceback (most recent call last):
        ValueError: Expected `floor` to be in (0, 1], but got 1.4.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        msg = f"Expected `{name}` to be a number, but got {value!r} of type {type(value).__name__}."
        raise TypeError(msg)
    too_low = value <= low if low_open else value < low
    too_high = value >= high if high_open else value > high
    if not math.isfinite(value) or too_low or too_high:
        left = "(" if low_open or math.isinf(low) else "["
        right = ")" if high_open or math.isinf(high) else "]"
        msg = f"Expected `{name}` to be in {left}{low:g}, {high:g}{right}, but got {value!r}."
        raise ValueError(msg)
    return float(value)


def check_integer(name: str, value: object, *, low: int, high: int | None = None) -> int:
    """Return `value` if it is an integer in [low, high].

    Raises:
        TypeError: `value` is not an integer (a bool is not one).
        ValueError: `value` is outside the interval.

    Example:
        >>> check_integer("num_steps", 3, low=1)
        3
    """
    if isinstance(value, bool) or not isinstance(value, int):
        msg = (
            f"Expected `{name}` to be an integer, but got {value!r} of type {type(value).__name__}."
        )
        raise TypeError(msg)
    if value < low or (high is not None and value > high):
        upper = "inf)" if high is None else f"{high}]"
        msg = f"Expected `{name}` to be in [{low}, {upper}, but got {value}."
        raise ValueError(msg)
    return value


def check_choice(name: str, value: object, known: Collection[str]) -> str:
    """Return `value` if it is one of the `known` names.

    Raises:
        ValueError: it is not; the message lists the known ones.

    Example:
        >>> check_choice("lr_schedule", "lineer", ["linear", "rex"])
        Traceback (most recent call last):
        ValueError: Expected `lr_schedule` to be one of 'linear', 'rex', but got 'lineer'.
    """
    if not isinstance(value, str) or value not in known:
        names = ", ".join(repr(k) for k in known)
        msg = f"Expected `{name}` to be one of {names}, but got {value!r}."
        raise ValueError(msg)
    return value
