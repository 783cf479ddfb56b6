"""Where the cost sits: bottlenecks, and the longest chain of dependent units."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lightning_attnbal.core import Dimension, UnitLoad, check_integer
from lightning_attnbal.measure._plan_cost import cost_of


@dataclass(frozen=True, slots=True)
class CriticalPath:
    """The longest dependent chain through the unit graph.

    Args:
        units: names along the chain, input first.
        length: what the chain costs.
        total: what all units cost.
        dimension: FLOP or SECOND.

    Example:
        >>> CriticalPath(("tower", "head"), 4.0, 6.0, Dimension.FLOP).parallelism
        1.5
    """

    units: tuple[str, ...]
    length: float
    total: float
    dimension: Dimension

    @property
    def parallelism(self) -> float:
        """Total / length, in [1, inf): the speed-up of running branches side by side."""
        return self.total / self.length if self.length else 1.0


def default_dimension(loads: Sequence[UnitLoad]) -> Dimension:
    """SECOND if every unit was timed, else FLOP."""
    timed = bool(loads) and all(load.seconds is not None for load in loads)
    return Dimension.SECOND if timed else Dimension.FLOP


def shares(loads: Sequence[UnitLoad], dimension: Dimension | None = None) -> dict[str, float]:
    """Unit name → its share of the cost of training everything, in [0, 1]."""
    chosen = dimension or default_dimension(loads)
    totals = {load.unit.name: cost_of(load, chosen).total for load in loads}
    whole = sum(totals.values()) or 1.0
    return {name: total / whole for name, total in totals.items()}


def bottlenecks(
    loads: Sequence[UnitLoad], dimension: Dimension | None = None, *, count: int = 3
) -> tuple[str, ...]:
    """Names of the `count` costliest units, costliest first.

    Raises:
        ValueError: `count` is below 1, or seconds were not measured.

    Example:
        >>> from lightning_attnbal.core import PassCost, Unit, UnitKind
        >>> unit = lambda i: Unit(f"layer.{i}", i, UnitKind.BLOCK, (), (), 0)
        >>> bottlenecks([UnitLoad(unit(i), PassCost(forward=i % 3)) for i in range(4)], count=2)
        ('layer.2', 'layer.1')
    """
    check_integer("count", count, low=1)
    share = shares(loads, dimension)
    return tuple(sorted(share, key=lambda name: -share[name])[:count])


def critical_path(loads: Sequence[UnitLoad], dimension: Dimension | None = None) -> CriticalPath:
    """The chain of units, each reading the one before, whose costs sum to the most.

    Branches that do not read one another can run side by side: of two towers joined by a head, the
    path takes the dearer one. One sweep in forward order: length_u = cost_u + max over
    predecessors, O(units + edges).

    Args:
        loads: units, forward order.
        dimension: FLOP or SECOND; by default seconds if all units were timed.

    Raises:
        ValueError: there are no units, or seconds were not measured.

    Example:
        >>> from lightning_attnbal.core import PassCost, Unit, UnitKind
        >>> unit = lambda i, name: Unit(name, i, UnitKind.BLOCK, (), (), 0)
        >>> loads = [
        ...     UnitLoad(unit(0, "image"), PassCost(forward=3.0)),
        ...     UnitLoad(unit(1, "text"), PassCost(forward=2.0)),
        ...     UnitLoad(unit(2, "head"), PassCost(forward=1.0), predecessors=(0, 1)),
        ... ]
        >>> path = critical_path(loads)
        >>> path.units, path.length, path.parallelism
        (('image', 'head'), 4.0, 1.5)
    """
    if not loads:
        msg = "Expected `loads` to have at least one unit, but it is empty."
        raise ValueError(msg)
    chosen = dimension or default_dimension(loads)
    cost = {load.unit.index: cost_of(load, chosen).total for load in loads}
    best: dict[int, tuple[float, tuple[str, ...]]] = {}
    for load in sorted(loads, key=lambda load: load.unit.index):
        below = [best[p] for p in load.predecessors if p in best]
        length, names = max(below, key=lambda path: path[0], default=(0.0, ()))
        index = load.unit.index
        best[index] = (length + cost[index], (*names, load.unit.name))
    length, names = max(best.values(), key=lambda path: path[0])
    return CriticalPath(names, length, sum(cost.values()), chosen)
