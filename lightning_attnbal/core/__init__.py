"""What everything speaks: units, levels, menus, budgets, plans. Standard library only."""

from lightning_attnbal.core._budget import Budget
from lightning_attnbal.core._checks import check_choice, check_integer, check_number
from lightning_attnbal.core._errors import (
    DimensionError,
    InfeasibleBudgetError,
    UnsupportedModelError,
)
from lightning_attnbal.core._level import (
    CACHED,
    DETACHED,
    FROZEN,
    FULL,
    LOCAL,
    Level,
    LevelKind,
    lora,
)
from lightning_attnbal.core._plan import Alternative, Change, Plan
from lightning_attnbal.core._problem import Caching, Menu, Option, Problem
from lightning_attnbal.core._quantity import Dimension, Quantity
from lightning_attnbal.core._unit import PassCost, Unit, UnitKind, UnitLoad

__all__ = [
    "CACHED",
    "DETACHED",
    "FROZEN",
    "FULL",
    "LOCAL",
    "Alternative",
    "Budget",
    "Caching",
    "Change",
    "Dimension",
    "DimensionError",
    "InfeasibleBudgetError",
    "Level",
    "LevelKind",
    "Menu",
    "Option",
    "PassCost",
    "Plan",
    "Problem",
    "Quantity",
    "Unit",
    "UnitKind",
    "UnitLoad",
    "UnsupportedModelError",
    "check_choice",
    "check_integer",
    "check_number",
    "lora",
]
