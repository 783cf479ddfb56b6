"""An error of this package."""

from __future__ import annotations


class InfeasibleMemoryError(ValueError):
    """No plan fits the memory limit, whatever it costs.

    Attributes:
        memory: what was asked for, in bytes.
        smallest: the peak of the smallest plan (or of the one plan meant), in bytes.

    Example:
        >>> str(InfeasibleMemoryError(memory=2, smallest=3, plan="full"))
        'Expected `memory` to be at least 3 bytes (full), but got 2.'
    """

    def __init__(
        self, memory: float, smallest: float, plan: str = "the smallest plan that trains anything"
    ) -> None:
        self.memory = memory
        self.smallest = smallest
        super().__init__(
            f"Expected `memory` to be at least {smallest:.6g} bytes ({plan}), but got {memory:.6g}."
        )
