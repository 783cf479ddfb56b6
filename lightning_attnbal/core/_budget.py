"""What a run may cost."""

from __future__ import annotations

from dataclasses import dataclass

from lightning_attnbal.core._quantity import Dimension, Quantity


@dataclass(frozen=True, slots=True)
class Budget:
    """Upper bound for a run: a share of the full run's FLOPs, a FLOP count or wall-clock time.

    Optionally also a memory peak.

    Args:
        limit: a fraction in (0, 1] of the full run's FLOPs, FLOPs in (0, inf) or seconds in (0,
            inf).
        memory: peak bytes of training state and saved activations in (0, inf), or None for no
            limit.

    Raises:
        ValueError: a value is outside its range, or of a dimension that makes no sense there.

    Example:
        >>> budget = Budget.parse("40%", memory="6GiB")
        >>> print(budget)
        40% of the full run, at most 6 GiB
        >>> print(Budget.parse("2e15 FLOP").limit)
        2 PFLOP
        >>> Budget.parse(1.4)
        Traceback (most recent call last):
        ValueError: Expected `budget` to be in (0, 1] as a share of the full run, but got 140%.
    """

    limit: Quantity
    memory: Quantity | None = None

    def __post_init__(self) -> None:
        if self.limit.dimension is Dimension.BYTE:
            msg = (
                f"Expected `budget` to be a share, a time or a FLOP count, but got {self.limit}; "
                "use `memory=` for bytes."
            )
            raise ValueError(msg)
        if self.is_fraction and not 0 < self.limit.amount <= 1:
            msg = (
                "Expected `budget` to be in (0, 1] as a share of the full run, "
                f"but got {self.limit}."
            )
            raise ValueError(msg)
        if self.limit.amount <= 0:
            msg = f"Expected `budget` to be in (0, inf), but got {self.limit}."
            raise ValueError(msg)
        if self.memory is not None:
            if self.memory.dimension is not Dimension.BYTE:
                msg = f"Expected `memory` to be in bytes such as '6GiB', but got {self.memory}."
                raise ValueError(msg)
            if self.memory.amount <= 0:
                msg = f"Expected `memory` to be in (0, inf) bytes, but got {self.memory}."
                raise ValueError(msg)

    @classmethod
    def parse(
        cls, limit: str | float | Quantity | Budget, memory: str | Quantity | None = None
    ) -> Budget:
        """Read "40%", 0.4, "45min", "2h", "2e15 FLOP" or "3 PFLOP", and a memory limit "6GiB".

        Raises:
            TypeError: a value is neither text, a number, nor a quantity.
            ValueError: a value cannot be read or is outside its range.
        """
        if isinstance(limit, Budget):
            return limit if memory is None else cls(limit.limit, Quantity.parse(memory, "memory"))
        return cls(
            Quantity.parse(limit, "budget"),
            None if memory is None else Quantity.parse(memory, "memory"),
        )

    @property
    def is_fraction(self) -> bool:
        """Whether the limit is relative to the full run."""
        return self.limit.dimension is Dimension.FRACTION

    @property
    def dimension(self) -> Dimension:
        """What is counted against the budget: FLOP or SECOND (a fraction counts FLOPs)."""
        return Dimension.SECOND if self.limit.dimension is Dimension.SECOND else Dimension.FLOP

    def resolve(self, reference: Quantity) -> Quantity:
        """The absolute limit, given what the full run costs.

        Raises:
            DimensionError: `reference` is not in the dimension the budget is counted in.

        Example:
            >>> print(Budget.parse("40%").resolve(Quantity.parse("5 PFLOP")))
            2 PFLOP
        """
        if not self.is_fraction:
            return self.limit
        return (reference - Quantity(0.0, self.dimension)) * self.limit.amount

    def __str__(self) -> str:
        text = f"{self.limit} of the full run" if self.is_fraction else str(self.limit)
        return text if self.memory is None else f"{text}, at most {self.memory}"
