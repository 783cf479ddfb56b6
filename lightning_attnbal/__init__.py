"""Train within a fixed compute budget.

The public names are loaded on first use, so that `import lightning_attnbal.allocate` needs neither
torch nor Lightning.

Example:
    >>> from lightning_attnbal import Budget
    >>> print(Budget.parse("40%"))
    40% of the full run
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lightning_attnbal.allocate import frontier, solve
    from lightning_attnbal.apply import CacheSettings, FixedViews
    from lightning_attnbal.callbacks import AttentionBalancer
    from lightning_attnbal.core import Budget, Level, Plan, Quantity, Unit
    from lightning_attnbal.measure import discover_units, profile
    from lightning_attnbal.planning import forecast_plans

__all__ = [
    "AttentionBalancer",
    "Budget",
    "CacheSettings",
    "FixedViews",
    "Level",
    "Plan",
    "Quantity",
    "Unit",
    "discover_units",
    "forecast_plans",
    "frontier",
    "profile",
    "solve",
]

_HOMES = {
    "allocate": ("frontier", "solve"),
    "apply": ("CacheSettings", "FixedViews"),
    "callbacks": ("AttentionBalancer",),
    "core": ("Budget", "Level", "Plan", "Quantity", "Unit"),
    "measure": ("discover_units", "profile"),
    "planning": ("forecast_plans",),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
