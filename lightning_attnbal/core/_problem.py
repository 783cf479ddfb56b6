"""The allocation problem: a menu per unit, coupled by the depth of the lowest trained unit."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from lightning_attnbal.core._checks import check_number
from lightning_attnbal.core._level import Level, LevelKind


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One level on a unit's menu.

    Args:
        level: the setting.
        cost: what it costs per step in any case, in [0, inf).
        cost_above: what it costs *more* when some unit below trains (dX through the unit), in [0,
            inf).
        once: what it costs in addition, once, over the first steps (filling a cache), finite; the
            sum over a plan counts, and a unit's part may be negative.
        value: contribution of training the unit at this level for a step, in loss units, finite.
        memory: bytes it needs in any case, in [0, inf).
        memory_above: bytes it needs more when some unit below trains, in [0, inf).

    Raises:
        TypeError: an amount is not a number.
        ValueError: an amount is out of range.

    Example:
        >>> from lightning_attnbal.core import FULL
        >>> option = Option(level=FULL, cost=2.0, cost_above=1.0, value=0.5)
        >>> option.value / option.cost
        0.25
    """

    level: Level
    cost: float
    cost_above: float = 0.0
    once: float = 0.0
    value: float = 0.0
    memory: float = 0.0
    memory_above: float = 0.0

    def __post_init__(self) -> None:
        for name in ("cost", "cost_above", "memory", "memory_above"):
            check_number(name, getattr(self, name), low=0)
        check_number("once", self.once)
        check_number("value", self.value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Caching:
    """What it takes to read the prefix that ends with a unit instead of running it.

    Args:
        miss: share of the samples that are run all the same, once the cache is full, in [0, 1].
        fill: batches that must be run through the whole prefix once until it is, in [0, inf).
        read: cost of reading a batch, in [0, inf).

    Raises:
        ValueError: a number is out of range.

    Example:
        >>> Caching(fill=94).miss
        0.0
    """

    miss: float = 0.0
    fill: float = 0.0
    read: float = 0.0

    def __post_init__(self) -> None:
        check_number("miss", self.miss, low=0, high=1)
        check_number("fill", self.fill, low=0)
        check_number("read", self.read, low=0)


@dataclass(frozen=True, slots=True)
class Menu:
    """The mutually exclusive settings of one unit.

    Raises:
        ValueError: the menu is empty or names a level twice.

    Example:
        >>> from lightning_attnbal.core import FROZEN, FULL
        >>> menu = Menu("layer.0", (Option(level=FROZEN, cost=1.0), Option(level=FULL, cost=3.0)))
        >>> menu.option(FULL).cost
        3.0
    """

    unit: str
    options: tuple[Option, ...]

    def __post_init__(self) -> None:
        if not self.options:
            msg = f"Expected the menu of unit {self.unit!r} to have a level, but it is empty."
            raise ValueError(msg)
        counts = Counter(o.level for o in self.options)
        twice = [str(level) for level, n in counts.items() if n > 1]
        if twice:
            msg = f"Expected each level once on the menu of {self.unit!r}, but got {twice} twice."
            raise ValueError(msg)

    def option(self, level: Level) -> Option:
        """The option for `level`.

        Raises:
            ValueError: it is not on the menu.
        """
        for option in self.options:
            if option.level == level:
                return option
        known = ", ".join(str(o.level) for o in self.options)
        msg = f"Expected a level on the menu of unit {self.unit!r} ({known}), but got {level}."
        raise ValueError(msg)


@dataclass(frozen=True, slots=True)
class Problem:
    """Menus in forward order plus what a step costs whatever the plan, for one task.

    A choice of one level per unit is a **valid plan** if
    1. at least one unit is trained (level local, lora or full);
    2. cached units form a prefix: everything below a cached unit is cached;
    3. detached and local occur only above the lowest trained unit or as that unit itself (local),
    never below it.

    With t the lowest trained unit, the plan costs

        c = share · (fixed + Σ_u cost_u + Σ_{u > t} cost_above_u),

    and once, over its first steps, share · Σ_u once_u more;
    its value is share · Σ_u value_u, and its memory fixed_memory + Σ_u memory_u + Σ_{u > t}
    memory_above_u.

    Args:
        menus: one per unit, forward order.
        fixed: cost per step whatever the plan, in [0, inf).
        task: name of the task.
        share: share of the steps that go to this task, in (0, 1]; scales cost and value, not
            memory.
        fixed_memory: bytes needed whatever the plan, in [0, inf).

    Raises:
        ValueError: no menus, a unit named twice, or a number out of range.
    """

    menus: tuple[Menu, ...]
    fixed: float = 0.0
    task: str = "main"
    share: float = 1.0
    fixed_memory: float = 0.0

    def __post_init__(self) -> None:
        check_number("fixed", self.fixed, low=0)
        check_number("fixed_memory", self.fixed_memory, low=0)
        check_number("share", self.share, low=0, high=1, low_open=True)
        if not self.menus:
            msg = "Expected `menus` to have at least one unit, but it is empty."
            raise ValueError(msg)
        twice = [name for name, n in Counter(m.unit for m in self.menus).items() if n > 1]
        if twice:
            msg = f"Expected unit names to be unique, but got {twice} more than once."
            raise ValueError(msg)

    def why_invalid(self, levels: tuple[Level, ...]) -> str | None:
        """Why `levels` (one per unit) is no valid plan, or None if it is one.

        Example:
            >>> from lightning_attnbal.core import FROZEN, FULL, Menu, Option, Problem
            >>> full = Option(level=FULL, cost=2, cost_above=1, value=3)
            >>> menu = [Option(level=FROZEN, cost=1), full]
            >>> problem = Problem(tuple(Menu(f"layer.{i}", tuple(menu)) for i in range(2)))
            >>> problem.why_invalid((FROZEN, FROZEN))
            'nothing is trained'
            >>> problem.evaluate((FROZEN, FULL)), problem.evaluate((FULL, FULL))
            ((3.0, 3.0, 0.0), (5.0, 6.0, 0.0))
        """
        if len(levels) != len(self.menus):
            return f"{len(levels)} levels for {len(self.menus)} units"
        trained = [i for i, level in enumerate(levels) if level.is_trained]
        if not trained:
            return "nothing is trained"
        cached = [i for i, level in enumerate(levels) if level.kind is LevelKind.CACHED]
        if cached != list(range(len(cached))):
            return "cached units are not a prefix"
        cut = [
            i
            for i, level in enumerate(levels)
            if level.kind in {LevelKind.DETACHED, LevelKind.LOCAL}
        ]
        if cut and cut[0] < trained[0]:
            return f"unit {self.menus[cut[0]].unit!r} is detached although nothing below it trains"
        return None

    def offers(self, levels: tuple[Level, ...]) -> bool:
        """Whether the menus have these levels, one per unit.

        Example:
            >>> from lightning_attnbal.core import FROZEN, FULL, Menu, Option, Problem
            >>> problem = Problem((Menu("head", (Option(level=FULL, cost=2),)),))
            >>> problem.offers((FULL,)), problem.offers((FROZEN,))
            (True, False)
        """
        return len(levels) == len(self.menus) and all(
            any(option.level == level for option in menu.options)
            for menu, level in zip(self.menus, levels, strict=True)
        )

    def one_off(self, levels: tuple[Level, ...]) -> float:
        """What `levels` cost once, in addition to their cost per step: share · Σ_u once_u.

        Example:
            >>> from lightning_attnbal.core import CACHED, FULL, Menu, Option, Problem
            >>> low = Menu("low", (Option(level=CACHED, cost=0, once=7),))
            >>> high = Menu("high", (Option(level=FULL, cost=2, value=1),))
            >>> Problem((low, high)).one_off((CACHED, FULL))
            7.0
        """
        chosen = (menu.option(level) for menu, level in zip(self.menus, levels, strict=True))
        return self.share * float(sum(option.once for option in chosen))

    def evaluate(self, levels: tuple[Level, ...]) -> tuple[float, float, float]:
        """(cost, value, memory) of a valid plan.

        Raises:
            ValueError: the plan is not valid, or a level is not on its menu.
        """
        why = self.why_invalid(levels)
        if why is not None:
            msg = f"Expected `levels` to be a valid plan, but {why}."
            raise ValueError(msg)
        lowest = next(i for i, level in enumerate(levels) if level.is_trained)
        chosen = [menu.option(level) for menu, level in zip(self.menus, levels, strict=True)]
        above = chosen[lowest + 1 :]
        cost = self.fixed + sum(o.cost for o in chosen) + sum(o.cost_above for o in above)
        memory = (
            self.fixed_memory + sum(o.memory for o in chosen) + sum(o.memory_above for o in above)
        )
        return self.share * cost, self.share * sum(o.value for o in chosen), memory
