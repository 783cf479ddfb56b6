"""The exact cost of a step under a plan."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace

from lightning_attnbal.core import (
    Dimension,
    Level,
    LevelKind,
    PassCost,
    Plan,
    UnitLoad,
    check_integer,
)

Levels = Sequence[Level] | Plan | Mapping[str, Level]


def cost_of(load: UnitLoad, dimension: Dimension, batches_per_step: int = 1) -> PassCost:
    """What a unit costs per optimizer step of `batches_per_step` batches.

    Raises:
        ValueError: seconds are asked for but were not measured, or `dimension` is neither FLOP nor
            SECOND.

    Example:
        >>> from lightning_attnbal.core import Unit, UnitKind
        >>> load = UnitLoad(Unit("head", 0, UnitKind.HEAD, (), (), 0), PassCost(forward=2.0))
        >>> cost_of(load, Dimension.FLOP, batches_per_step=4).forward
        8.0
    """
    if dimension not in {Dimension.FLOP, Dimension.SECOND}:
        msg = f"Expected `dimension` to be FLOP or SECOND, but got {dimension.name}."
        raise ValueError(msg)
    cost = load.flops if dimension is Dimension.FLOP else load.seconds
    if cost is None:
        name = load.unit.name
        msg = f"Expected unit {name!r} to have measured seconds, but it has none; time it first."
        raise ValueError(msg)
    times = check_integer("batches_per_step", batches_per_step, low=1)
    return replace(
        cost,
        forward=times * cost.forward,
        own_backward=times * cost.own_backward,
        pass_backward=times * cost.pass_backward,
        full_backward=times * cost.full_backward,
        side_input=times * cost.side_input,
        main_pass=times * cost.main_pass,
        main_full=times * cost.main_full,
    )


def levels_of(loads: Sequence[UnitLoad], levels: Levels) -> tuple[Level, ...]:
    """One level per load, in their order.

    Raises:
        ValueError: a unit has no level, or there are too many.
    """
    if isinstance(levels, Mapping):
        missing = [load.unit.name for load in loads if load.unit.name not in levels]
        if missing:
            msg = f"Expected `levels` to name every unit, but {', '.join(missing)} is missing."
            raise ValueError(msg)
        return tuple(levels[load.unit.name] for load in loads)
    if len(levels) != len(loads):
        msg = f"Expected `levels` to have one level per unit ({len(loads)}), but got {len(levels)}."
        raise ValueError(msg)
    return tuple(levels)


def upstream(loads: Sequence[UnitLoad]) -> dict[int, frozenset[int]]:
    """For each unit the units that its inputs depend on, directly or not.

    Example:
        >>> from lightning_attnbal.core import Unit, UnitKind
        >>> unit = lambda i: Unit(f"layer.{i}", i, UnitKind.BLOCK, (), (), 0)
        >>> below = [(), (0,), (1,)]
        >>> chain = [UnitLoad(unit(i), PassCost(), predecessors=below[i]) for i in range(3)]
        >>> sorted(upstream(chain)[2])
        [0, 1]
    """
    found: dict[int, frozenset[int]] = {}
    for load in sorted(loads, key=lambda load: load.unit.index):
        below = [p for p in load.predecessors if p < load.unit.index]
        found[load.unit.index] = frozenset(below).union(*(found[p] for p in below))
    return found


def plan_cost(
    loads: Sequence[UnitLoad],
    levels: Levels,
    *,
    dimension: Dimension = Dimension.FLOP,
    fixed: float = 0.0,
    batches_per_step: int = 1,
) -> float:
    """What one optimizer step costs under a plan.

    dX through a unit is paid only if a unit that feeds it, directly or not, really trains, and its
    side inputs (cross attention) only if their source does. So the cost is never above the chain
    cost of `core.Problem`, and equal to it for a plain stack of layers. `batches_per_step`
    multiplies forward and backward, not the optimizer.

    Args:
        loads: measured units, forward order.
        levels: one level per load, or a mapping from unit name to level such as a `Plan`.
        dimension: FLOP or SECOND.
        fixed: cost per step whatever the plan, in [0, inf).
        batches_per_step: batches accumulated per optimizer step, in [1, inf).

    Raises:
        ValueError: `levels` does not fit the loads, or seconds were not measured.

    Example:
        >>> from lightning_attnbal.core import FROZEN, FULL, Unit, UnitKind
        >>> cost = PassCost(forward=1.0, own_backward=1.5, pass_backward=1.0, full_backward=2.0)
        >>> unit = lambda i: Unit(f"tower.{i}", i, UnitKind.BLOCK, (), (), 0)
        >>> below = [(), (), (0, 1)]  # two towers and what joins them
        >>> towers = [UnitLoad(unit(i), cost, predecessors=below[i]) for i in range(3)]
        >>> plan_cost(towers, [FULL, FROZEN, FROZEN])  # no dX through the second tower
        5.5
    """
    parts = plan_parts(loads, levels, dimension=dimension, batches_per_step=batches_per_step)
    return fixed + sum(parts)


def plan_parts(
    loads: Sequence[UnitLoad],
    levels: Levels,
    *,
    dimension: Dimension = Dimension.FLOP,
    batches_per_step: int = 1,
) -> tuple[float, float, float]:
    """`plan_cost` by part: (forward, backward, optimizer).

    Raises:
        ValueError: `levels` does not fit the loads, or seconds were not measured.
    """
    forward = backward = optimizer = 0.0
    for parts in _unit_parts(loads, levels, dimension, batches_per_step).values():
        forward, backward, optimizer = (
            forward + parts[0],
            backward + parts[1],
            optimizer + parts[2],
        )
    return forward, backward, optimizer


def unit_costs(
    loads: Sequence[UnitLoad],
    levels: Levels,
    *,
    dimension: Dimension = Dimension.FLOP,
    batches_per_step: int = 1,
) -> dict[str, float]:
    """`plan_cost` by unit, without what is fixed.

    Raises:
        ValueError: `levels` does not fit the loads, or seconds were not measured.

    Example:
        >>> from lightning_attnbal.core import FROZEN, FULL, Unit, UnitKind
        >>> cost = PassCost(forward=1.0, own_backward=1.5, pass_backward=1.0, full_backward=2.0)
        >>> unit = lambda i: Unit(f"layer.{i}", i, UnitKind.BLOCK, (), (), 0)
        >>> stack = [UnitLoad(unit(i), cost, predecessors=(i - 1,) if i else ()) for i in range(2)]
        >>> unit_costs(stack, [FROZEN, FULL])
        {'layer.0': 1.0, 'layer.1': 2.5}
    """
    parts = _unit_parts(loads, levels, dimension, batches_per_step)
    return {name: sum(costs) for name, costs in parts.items()}


def _unit_parts(
    loads: Sequence[UnitLoad], levels: Levels, dimension: Dimension, batches_per_step: int
) -> dict[str, tuple[float, float, float]]:
    """By unit: (forward, backward, optimizer)."""
    chosen = list(zip(loads, levels_of(loads, levels), strict=True))
    ancestors = upstream(loads)
    trained = {load.unit.index for load, level in chosen if level.is_trained}
    parts = {}
    for load, level in chosen:
        cost = cost_of(load, dimension, batches_per_step)
        below = bool(ancestors[load.unit.index] & trained)
        runs = 0.0 if level.kind is LevelKind.CACHED else cost.forward
        updates = cost.optimizer if level.is_trained else 0.0
        backward = cost.at(level, below=below) - runs - updates
        if below and level.passes_gradient and cost.side_source >= 0:
            backward -= _idle_input(load, cost, level, ancestors, trained)
        parts[load.unit.name] = (runs, backward, updates)
    return parts


def _idle_input(
    load: UnitLoad,
    cost: PassCost,
    level: Level,
    ancestors: Mapping[int, frozenset[int]],
    trained: Collection[int],
) -> float:
    """What falls away where only the main input, or only the side input, needs a gradient."""

    def trains(units: Iterable[int]) -> bool:
        return any(not ancestors[u].isdisjoint(trained) or u in trained for u in units)

    if not trains([cost.side_source]):
        return cost.side_input
    if trains(p for p in load.predecessors if p != cost.side_source):
        return 0.0
    return cost.main_full if level.is_trained else cost.main_pass
