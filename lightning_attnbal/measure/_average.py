"""Average loads over batches that differ in shape."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace

from lightning_attnbal.core import PassCost, UnitLoad

_AVERAGED = tuple(field.name for field in fields(PassCost) if field.name != "side_source")
_LARGEST = ("saved_bytes", "parameter_bytes", "optimizer_bytes", "boundary_bytes")


def average_loads(weighted: Sequence[tuple[Sequence[UnitLoad], int]]) -> tuple[UnitLoad, ...]:
    """Mean FLOPs per batch of each unit, and the most bytes it needs.

    Args:
        weighted: loads of one shape of batch, forward order, with how many batches had it.

    Raises:
        ValueError: no batches, or the shapes do not have the same units in the same order.

    Example:
        >>> from lightning_attnbal.core import PassCost, Unit, UnitKind
        >>> unit = Unit("head", 0, UnitKind.HEAD, ("head",), ("head.weight",), 4)
        >>> small, large = ([UnitLoad(unit, PassCost(forward=f))] for f in (2.0, 4.0))
        >>> average_loads([(small, 3), (large, 1)])[0].flops.forward
        2.5
    """
    total = sum(count for _, count in weighted)
    if not total:
        msg = "Expected `weighted` to hold at least one batch, but it is empty."
        raise ValueError(msg)
    names = [tuple(load.unit.name for load in loads) for loads, _ in weighted]
    if len(set(names)) > 1:
        msg = "Expected `weighted` to name the same units, in the same order, for every shape."
        raise ValueError(msg)
    if len(weighted) == 1:
        return tuple(weighted[0][0])
    shares = [count / total for _, count in weighted]
    columns = zip(*(loads for loads, _ in weighted), strict=True)
    return tuple(_mean(column, shares) for column in columns)


def _mean(loads: Sequence[UnitLoad], shares: Sequence[float]) -> UnitLoad:
    """One unit over all shapes."""
    flops = {
        name: sum(w * getattr(x.flops, name) for x, w in zip(loads, shares, strict=True))
        for name in _AVERAGED
    }
    most = {name: max(getattr(load, name) for load in loads) for name in _LARGEST}
    return replace(loads[0], flops=replace(loads[0].flops, **flops), **most)
