"""The cached prefix is the same in all tasks: what that leaves of a task's menus."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from lightning_attnbal.core import CACHED, FROZEN, LevelKind, Menu, Option, Problem


def is_unused(menu: Menu) -> bool:
    """Whether the task does not run the unit at all (another task's head): frozen, at no cost.

    Example:
        >>> is_unused(Menu("head.b", (Option(level=FROZEN, cost=0),)))
        True
    """
    option = menu.options[0]
    free = not (option.cost or option.cost_above)
    return len(menu.options) == 1 and option.level == FROZEN and free


def depths(problems: Sequence[Problem]) -> range:
    """Numbers of units that all tasks together could have cached; 0 alone without such menus."""
    offered = any(o.level == CACHED for p in problems for m in p.menus for o in m.options)
    return range(len(problems[0].menus) if offered else 1)


def at_rest(menu: Menu) -> Option | None:
    """The unit in a cached prefix: cached, or not used by the task; None if it cannot be there."""
    if is_unused(menu):
        return menu.options[0]
    return next((o for o in menu.options if o.level.kind is LevelKind.CACHED), None)


def cached_prefix(rests: Sequence[Option | None]) -> tuple[Option, ...] | None:
    """What caching these units takes, an option per unit; None if that cannot be.

    Units that the task does not use lie above all that are cached.
    """
    options = tuple(option for option in rests if option is not None)
    is_cached = [option.level.kind is LevelKind.CACHED for option in options]
    if len(options) < len(rests) or False in is_cached[: sum(is_cached)]:
        return None
    return options


def restrict(problem: Problem, depth: int) -> Problem | None:
    """The menus left where exactly the first `depth` units are cached, None if that is no plan."""
    prefix = cached_prefix([at_rest(menu) for menu in problem.menus[:depth]])
    rest = [tuple(o for o in m.options if o.level != CACHED) for m in problem.menus[depth:]]
    if prefix is None or not all(rest) or not _can_train(rest):
        return None
    options = [*((option,) for option in prefix), *rest]
    named = zip(problem.menus, options, strict=True)
    return replace(problem, menus=tuple(Menu(menu.unit, left) for menu, left in named))


def _can_train(menus: Sequence[tuple[Option, ...]]) -> bool:
    """Whether some unit trains with all units below it frozen."""
    for options in menus:
        if any(o.level.is_trained for o in options):
            return True
        if not any(o.level == FROZEN for o in options):
            return False
    return False
