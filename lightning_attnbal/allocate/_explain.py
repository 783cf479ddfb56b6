"""Why each unit got its level, in words and numbers."""

from __future__ import annotations

from collections.abc import Iterator

from lightning_attnbal.allocate._levels import Levels, with_level
from lightning_attnbal.allocate._limits import Limits
from lightning_attnbal.core import CACHED, DETACHED, FROZEN, Level, Menu, Problem


def explain(problem: Problem, levels: Levels, price: float, limits: Limits) -> dict[str, str]:
    """A reason per unit: what its level brings per cost, or what training would, against λ.

    Both sides are exact differences of `Problem.evaluate` between the plan and the plan with that
    one unit changed, so the gradient that has to pass through the units above is in the price.

    Args:
        problem: the menus.
        levels: a valid plan.
        price: λ, value per unit of cost.
        limits: names the unit of cost.

    Example:
        >>> from lightning_attnbal.core import FULL, Option
        >>> menu = (Option(level=FROZEN, cost=1, cost_above=1),
        ...         Option(level=FULL, cost=2, cost_above=1, value=3))
        >>> problem = Problem((Menu("low", menu), Menu("high", menu)))
        >>> for unit, reason in explain(problem, (FROZEN, FULL), 0.5, Limits(remaining=9)).items():
        ...     print(unit, "-", reason)
        low - frozen: full would bring 1.5 per cost against λ = 0.5
        high - full: the only unit that trains
    """
    reasons = {}
    for k, menu in enumerate(problem.menus):
        compare = _why_trained if levels[k].is_trained else _why_not
        reasons[menu.unit] = f"{levels[k]}: {compare(problem, levels, k, price, limits)}"
    return reasons


def _why_trained(problem: Problem, levels: Levels, k: int, price: float, limits: Limits) -> str:
    for level in (FROZEN, DETACHED, CACHED):
        other = with_level(problem, levels, k, level)
        if other is not None:
            return f"{_rate(problem, other, levels, limits)} against {_price(price, limits)}"
    only = sum(level.is_trained for level in levels) == 1
    return "the only unit that trains" if only else "its menu has nothing else that fits this plan"


def _why_not(problem: Problem, levels: Levels, k: int, price: float, limits: Limits) -> str:
    for level in _by_value(problem.menus[k]):
        other = with_level(problem, levels, k, level)
        if other is not None:
            rate = _rate(problem, levels, other, limits)
            return f"{level} would bring {rate} against {_price(price, limits)}"
    return "its menu has nothing to train"


def _by_value(menu: Menu) -> Iterator[Level]:
    """Levels that train the unit, most valuable first."""
    options = [option for option in menu.options if option.level.is_trained]
    return (o.level for o in sorted(options, key=lambda o: o.value, reverse=True))


def _rate(problem: Problem, less: Levels, more: Levels, limits: Limits) -> str:
    """What `more` adds to `less`, per unit of cost."""
    cost, value, _ = problem.evaluate(less)
    more_cost, more_value, _ = problem.evaluate(more)
    gain, price = more_value - value, (more_cost - cost) / limits.cost_scale
    if price <= 0:
        return f"{gain:.3g} at no extra cost"
    return f"{gain / price:.3g} per {limits.cost_unit}"


def _price(price: float, limits: Limits) -> str:
    return f"λ = {price * limits.cost_scale:.3g}"
