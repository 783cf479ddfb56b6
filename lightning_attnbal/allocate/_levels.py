"""Plans by hand: which level a unit gets if it is to train, and if it is not."""

from __future__ import annotations

from collections.abc import Collection

from lightning_attnbal.core import CACHED, DETACHED, FROZEN, Level, LevelKind, Menu, Problem

Levels = tuple[Level, ...]

_ORDER = list(LevelKind)


def trained_level(menu: Menu) -> Level | None:
    """The level that trains most of the unit, None if none does.

    Full before LoRA before local, high ranks first.
    """
    levels = [option.level for option in menu.options if option.level.is_trained]
    return max(levels, key=lambda level: (_ORDER.index(level.kind), level.rank), default=None)


def trainable(problem: Problem) -> list[int]:
    """Positions of the units that can train at all, forward order."""
    return [k for k, menu in enumerate(problem.menus) if trained_level(menu) is not None]


def full_levels(problem: Problem) -> Levels:
    """Everything trains that can, as much as its menu allows.

    Example:
        >>> from lightning_attnbal.core import FULL, Option
        >>> menu = (Option(level=FROZEN, cost=1), Option(level=FULL, cost=2))
        >>> [str(level) for level in full_levels(Problem((Menu("only", menu),)))]
        ['full']
    """
    return train_only(problem, trainable(problem))


def trained_units(problem: Problem, levels: Levels) -> frozenset[str]:
    """Names of the units that train at these levels.

    Example:
        >>> from lightning_attnbal.core import FULL, Option
        >>> menu = (Option(level=FROZEN, cost=1), Option(level=FULL, cost=2))
        >>> problem = Problem((Menu("low", menu), Menu("high", menu)))
        >>> sorted(trained_units(problem, (FROZEN, FULL)))
        ['high']
    """
    pairs = zip(problem.menus, levels, strict=True)
    return frozenset(menu.unit for menu, level in pairs if level.is_trained)


def train_only(problem: Problem, units: Collection[int], *, caches: bool = False) -> Levels:
    """The plan that trains `units` as much as their menus allow, and no other.

    The rest is frozen, with `caches` cached below the lowest one if all menus there allow it; where
    a menu lacks that, detached above the lowest trained unit and cached below it.

    Raises:
        ValueError: a unit's menu does not allow its part.

    Example:
        >>> from lightning_attnbal.core import FULL, Option
        >>> menu = (Option(level=FROZEN, cost=1), Option(level=FULL, cost=2))
        >>> problem = Problem(tuple(Menu(f"layer.{i}", menu) for i in range(3)))
        >>> [str(level) for level in train_only(problem, {2})]
        ['frozen', 'frozen', 'full']
        >>> menu = (*menu, Option(level=CACHED, cost=0))
        >>> problem = Problem(tuple(Menu(f"layer.{i}", menu) for i in range(3)))
        >>> [str(level) for level in train_only(problem, {1}, caches=True)]
        ['cached', 'full', 'frozen']
    """
    lowest = min(units, default=len(problem.menus))
    below = problem.menus[:lowest]
    caches = caches and all(any(o.level == CACHED for o in menu.options) for menu in below)
    levels = []
    for k, menu in enumerate(problem.menus):
        resting = (FROZEN, DETACHED) if k > lowest else (FROZEN, CACHED)[:: -1 if caches else 1]
        wanted = [trained_level(menu)] if k in units else resting
        level = next((o.level for w in wanted for o in menu.options if o.level == w), None)
        if level is None:
            part = "trained" if k in units else "at rest"
            known = ", ".join(str(option.level) for option in menu.options)
            msg = (
                f"Expected the menu of unit {menu.unit!r} to let it be {part}, "
                f"but it has only {known}."
            )
            raise ValueError(msg)
        levels.append(level)
    return tuple(levels)


def with_level(problem: Problem, levels: Levels, unit: int, level: Level) -> Levels | None:
    """The plan with one unit at another level, or None if that is no valid plan.

    Where the unit starts to train below cached ones, those are frozen instead, as their input
    changes now.
    """
    changed = list(levels)
    changed[unit] = level
    if level.kind is not LevelKind.CACHED:
        for k in range(unit + 1, len(levels)):
            if changed[k] == CACHED:
                changed[k] = FROZEN
    known = all(
        any(o.level == new for o in menu.options)
        for menu, new in zip(problem.menus, changed, strict=True)
    )
    answer = tuple(changed)
    return answer if known and problem.why_invalid(answer) is None else None
