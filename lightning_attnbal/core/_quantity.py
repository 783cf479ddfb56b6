"""Amounts with a dimension, so that seconds are never added to FLOPs."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from lightning_attnbal.core._checks import check_number
from lightning_attnbal.core._errors import DimensionError


class Dimension(StrEnum):
    """What an amount counts; the value is the base unit it is stored in."""

    FLOP = "FLOP"
    SECOND = "s"
    BYTE = "B"
    FRACTION = ""


_SI = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12, "p": 1e15, "e": 1e18}
_IEC = {f"{prefix}i": 1024.0**power for power, prefix in enumerate("kmgtp", start=1)}
_SUFFIXES: dict[str, tuple[float, Dimension]] = {
    "%": (0.01, Dimension.FRACTION),
    "": (1.0, Dimension.FRACTION),
    **dict.fromkeys(("s", "sec", "second", "seconds"), (1.0, Dimension.SECOND)),
    **dict.fromkeys(("min", "minute", "minutes"), (60.0, Dimension.SECOND)),
    **dict.fromkeys(("h", "hour", "hours"), (3600.0, Dimension.SECOND)),
    **dict.fromkeys(("d", "day", "days"), (86400.0, Dimension.SECOND)),
    **{f"{p}flop{s}": (f, Dimension.FLOP) for p, f in _SI.items() for s in ("", "s")},
    **{f"{p}b": (f, Dimension.BYTE) for p, f in {**_SI, **_IEC}.items()},
}
_NUMBER = re.compile(r"\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?)\s*([a-z%]*)\s*", re.IGNORECASE)
_SHOWN = {
    Dimension.FLOP: (
        (1e18, "EFLOP"),
        (1e15, "PFLOP"),
        (1e12, "TFLOP"),
        (1e9, "GFLOP"),
        (1e6, "MFLOP"),
    ),
    Dimension.SECOND: ((3600.0, "h"), (60.0, "min")),
    Dimension.BYTE: ((1024.0**3, "GiB"), (1024.0**2, "MiB"), (1024.0, "KiB")),
    Dimension.FRACTION: ((0.0, "%"),),
}


@dataclass(frozen=True, slots=True)
class Quantity:
    """An amount in base units (FLOP, seconds, bytes, or a plain fraction).

    Arithmetic between different dimensions raises `DimensionError`.

    Example:
        >>> print(Quantity.parse("45min") + Quantity.parse("0.5h"))
        1.25 h
        >>> Quantity.parse("45min") + Quantity.parse("3 PFLOP")
        Traceback (most recent call last):
        DimensionError: Cannot combine 45 min with 3 PFLOP: s and FLOP differ.
    """

    amount: float
    dimension: Dimension

    @classmethod
    def parse(cls, value: str | float | Quantity, name: str = "quantity") -> Quantity:
        """Read "40%", 0.4, "45min", "2e15 FLOP", "3 PFLOP", "6GiB"; a bare number is a fraction.

        FLOP is a count, never a rate; prefixes are decimal (k, M, G, T, P, E), and binary (KiB,
        MiB, GiB) for bytes.

        Raises:
            TypeError: `value` is neither text nor a number.
            ValueError: the text is no number with a known unit, or not finite.
        """
        if isinstance(value, Quantity):
            return value
        if not isinstance(value, str):
            return cls(check_number(name, value), Dimension.FRACTION)
        match = _NUMBER.fullmatch(value.replace("\N{MINUS SIGN}", "-"))
        if match is None:
            msg = (
                f"Expected `{name}` to be a number with a unit such as '40%', '45min' or "
                f"'3 PFLOP', but got {value!r}."
            )
            raise ValueError(msg)
        unit = match[2].lower()
        if unit not in _SUFFIXES:
            msg = (
                f"Expected the unit of `{name}` to be one of %, s, min, h, d, FLOP (k, M, G, T, "
                f"P, E) or B (KiB, MiB, GiB, ...), but got {match[2]!r} in {value!r}."
            )
            raise ValueError(msg)
        factor, dimension = _SUFFIXES[unit]
        return cls(check_number(name, float(match[1]) * factor), dimension)

    def _same(self, other: Quantity) -> float:
        if self.dimension is not other.dimension:
            mine, yours = (d.value or "fraction" for d in (self.dimension, other.dimension))
            msg = f"Cannot combine {self} with {other}: {mine} and {yours} differ."
            raise DimensionError(msg)
        return other.amount

    def __add__(self, other: Quantity) -> Quantity:
        return Quantity(self.amount + self._same(other), self.dimension)

    def __sub__(self, other: Quantity) -> Quantity:
        return Quantity(self.amount - self._same(other), self.dimension)

    def __mul__(self, factor: float) -> Quantity:
        return Quantity(self.amount * check_number("factor", factor), self.dimension)

    __rmul__ = __mul__

    def __truediv__(self, other: Quantity) -> float:
        return self.amount / self._same(other)

    def __lt__(self, other: Quantity) -> bool:
        return self.amount < self._same(other)

    def __le__(self, other: Quantity) -> bool:
        return self.amount <= self._same(other)

    def __gt__(self, other: Quantity) -> bool:
        return self.amount > self._same(other)

    def __ge__(self, other: Quantity) -> bool:
        return self.amount >= self._same(other)

    def __str__(self) -> str:
        if self.dimension is Dimension.FRACTION:
            return f"{100 * self.amount:.4g}%"
        for factor, unit in _SHOWN[self.dimension]:
            if abs(self.amount) >= factor:
                return f"{self.amount / factor:.4g} {unit}"
        return f"{self.amount:.4g} {self.dimension.value}"
