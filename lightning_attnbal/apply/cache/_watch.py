"""What is looked at from the start of a step until its loss is known."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from lightning_attnbal.apply.cache._order import CallOrder, Visit
from lightning_attnbal.apply.cache._trace import Reads


class StepWatch:
    """Watches the calls of units, or what reads their results; at most one of them.

    Args:
        model: the model.
        unit_of: unit by module name.
    """

    def __init__(self, model: nn.Module, unit_of: Mapping[str, str]) -> None:
        self._model, self._unit_of = model, unit_of
        self._order: CallOrder | None = None
        self._reads: Reads | None = None

    def start_order(self) -> None:
        """Note the calls of units."""
        self._order = CallOrder(self._model, self._unit_of)
        self._order.start()

    def start_reads(self) -> Reads:
        """Follow results through every operation."""
        self._reads = Reads()
        self._reads.start()
        return self._reads

    def stop(self) -> tuple[Visit, ...]:
        """Stop whatever was started; the calls so far, if they were noted."""
        reads, self._reads = self._reads, None
        if reads is not None:
            reads.stop()
        order, self._order = self._order, None
        if order is None:
            return ()
        order.stop()
        return tuple(order.visits)
