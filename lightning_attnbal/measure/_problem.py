"""From measured loads to the allocation problem."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from lightning_attnbal.core import (
    CACHED,
    DETACHED,
    FROZEN,
    FULL,
    LOCAL,
    Caching,
    Dimension,
    Level,
    LevelKind,
    Menu,
    Option,
    PassCost,
    Problem,
    UnitLoad,
)
from lightning_attnbal.measure._plan_cost import cost_of


def build_problem(
    loads: Sequence[UnitLoad],
    values: Mapping[str, float],
    levels: Iterable[Level] = (FROZEN, FULL),
    *,
    dimension: Dimension = Dimension.FLOP,
    fixed: float = 0.0,
    batches_per_step: int = 1,
    caching: Mapping[str, Caching] | None = None,
) -> Problem:
    """The menus of all units, priced and valued.

    A unit without a value, or without parameters, can only be frozen. Frozen units always stay on
    the menu; `detached` and `local` are offered where the unit's branches can be cut. Memory:
    gradients and optimizer state of trained units, activations where a gradient passes, all
    parameters in any case; a unit that only passes dX on is charged all its activations, which is
    an upper bound.

    Args:
        loads: measured units, forward order.
        values: unit name → contribution of training it for a step, in loss units.
        levels: what may be on a menu: cached, frozen, detached, local, full. LoRA is priced by who
            injects it.
        dimension: FLOP or SECOND.
        fixed: cost per step whatever the plan, in [0, inf).
        batches_per_step: batches accumulated per optimizer step, in [1, inf).
        caching: unit name → what caching it takes; others are not offered to be cached. None:
            reading costs nothing anywhere.

    Raises:
        ValueError: a value names no unit, a level is LoRA, or seconds were not measured.

    Example:
        >>> from lightning_attnbal.core import Unit, UnitKind
        >>> cost = PassCost(forward=1.0, own_backward=1.5, pass_backward=1.0, full_backward=2.0)
        >>> load = UnitLoad(Unit("head", 0, UnitKind.HEAD, (), ("weight",), 4), cost)
        >>> menu = build_problem([load], {"head": 1.0}).menus[0]
        >>> [(str(option.level), option.cost, option.cost_above) for option in menu.options]
        [('frozen', 1.0, 1.0), ('full', 2.5, 0.5)]
    """
    names = [load.unit.name for load in loads]
    unknown = [name for name in values if name not in names]
    if unknown:
        msg = f"Expected `values` to name units ({', '.join(names)}), but got {', '.join(unknown)}."
        raise ValueError(msg)
    offered = list(dict.fromkeys((FROZEN, *levels)))
    lora = [str(level) for level in offered if level.kind is LevelKind.LORA]
    if lora:
        known = "cached, frozen, detached, local, full"
        msg = f"Expected `levels` to be among {known}, but got {', '.join(lora)}."
        raise ValueError(msg)
    menus = []
    prefix = _Prefix(batches_per_step)
    for load in loads:
        cost = cost_of(load, dimension, batches_per_step)
        value = values.get(load.unit.name)
        terms = Caching() if caching is None else caching.get(load.unit.name)
        fitting = [level for level in offered if _fits(load, level, value)]
        options = [_option(load, cost, x, value) for x in fitting if x.kind is not LevelKind.CACHED]
        if CACHED in fitting and terms is not None:
            options.append(prefix.add(cost, terms))
        menus.append(Menu(load.unit.name, tuple(options)))
    memory = float(sum(load.parameter_bytes for load in loads))
    return Problem(tuple(menus), fixed=fixed, fixed_memory=memory)


def _fits(load: UnitLoad, level: Level, value: float | None) -> bool:
    if level in {DETACHED, LOCAL} and not load.can_detach:
        return False
    return not level.is_trained or (value is not None and load.unit.num_parameters > 0)


class _Prefix:
    """Splits what a cached prefix costs over its units.

    A prefix costs miss · F + read per batch and fill · F once, F the forward pass of all of it; a
    unit's part is the difference to the prefix that ends below it, for costs per batch at least 0.
    """

    def __init__(self, batches_per_step: int) -> None:
        self._times = batches_per_step
        self._forward, self._cost, self._once = 0.0, 0.0, 0.0

    def add(self, cost: PassCost, terms: Caching) -> Option:
        """The next unit's part."""
        self._forward += cost.forward
        cost_now = terms.miss * self._forward + terms.read * self._times
        once_now = terms.fill * self._forward / self._times
        option = Option(
            level=CACHED, cost=max(0.0, cost_now - self._cost), once=once_now - self._once
        )
        self._cost, self._once = max(cost_now, self._cost), once_now
        return option


def _option(load: UnitLoad, cost: PassCost, level: Level, value: float | None) -> Option:
    alone, above = cost.at(level, below=False), cost.at(level, below=True)
    trained = load.saved_bytes + load.parameter_bytes + load.optimizer_bytes
    passes = level.passes_gradient and not level.is_trained
    return Option(
        level=level,
        cost=alone,
        cost_above=max(0.0, above - alone),
        value=value or 0.0 if level.is_trained else 0.0,
        memory=float(trained if level.is_trained else 0),
        memory_above=float(load.saved_bytes if passes else 0),
    )
