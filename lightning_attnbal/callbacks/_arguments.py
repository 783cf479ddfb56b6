"""Arguments of the callback, checked and made what they stand for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, TypeVar

from lightning_attnbal.core import Level, LevelKind, check_choice
from lightning_attnbal.trainer import DepthRate, RateRule

T = TypeVar("T")


def instance(name: str, value: T | None, kind: type, default: Callable[[], T]) -> T:
    """The value, or the default one for None."""
    if value is None:
        return default()
    if not isinstance(value, kind):
        msg = f"Expected `{name}` to be of type {kind.__name__}, but got {value!r}."
        raise TypeError(msg)
    return value


def check_rule(rule: Literal["depth"] | RateRule | None) -> RateRule | None:
    """The rule behind a name."""
    if rule is None or (callable(rule) and not isinstance(rule, str)):
        return rule
    check_choice("lr_scaling", rule, ("depth",))
    return DepthRate()


def check_levels(levels: Sequence[str | Level]) -> tuple[Level, ...]:
    """Read the levels a unit may get; one must train."""
    if isinstance(levels, str | Level):
        msg = f"Expected `levels` to be a sequence of levels, but got {levels!r}."
        raise TypeError(msg)
    parsed = tuple(dict.fromkeys(Level.parse(level) for level in levels))
    for level in parsed:
        if level.kind is LevelKind.LORA:
            msg = f"Expected `levels` among cached, frozen, detached, local, full; got {level}."
            raise ValueError(msg)
    if not any(level.is_trained for level in parsed):
        names = ", ".join(map(str, parsed)) or "none"
        msg = f"Expected `levels` to include one that trains (full or local), but got {names}."
        raise ValueError(msg)
    return parsed
