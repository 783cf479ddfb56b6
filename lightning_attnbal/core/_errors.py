"""The errors a caller may catch by type; all else is a plain ValueError or TypeError."""

from __future__ import annotations


class InfeasibleBudgetError(ValueError):
    """No plan fits the budget.

    Attributes:
        smallest: the smallest feasible cost, in the unit of the cost that was asked for.
        budget: what was asked for, in the same unit.

    Example:
        >>> error = InfeasibleBudgetError(budget=1.0, smallest=2.5)
        >>> error.smallest
        2.5
        >>> print(error)
        Expected `budget` to be at least 2.5 (the cheapest plan that trains anything), but got 1.
    """

    def __init__(
        self,
        budget: float,
        smallest: float,
        unit: str = "",
        plan: str = "the cheapest plan that trains anything",
    ) -> None:
        self.budget = budget
        self.smallest = smallest
        suffix = f" {unit}" if unit else ""
        super().__init__(
            f"Expected `budget` to be at least {smallest:.6g}{suffix} ({plan}), "
            f"but got {budget:.6g}{suffix}."
        )


class DimensionError(TypeError):
    """Quantities of different dimensions (FLOP, seconds, bytes, fraction) were combined."""


class UnsupportedModelError(ValueError):
    """A model, unit or level cannot be handled; the message says which, why, and the remedy."""
