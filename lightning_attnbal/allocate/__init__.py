"""Menus and a budget in, a frontier of plans and a plan out. NumPy only."""

from lightning_attnbal.allocate._allocator import Allocator, Choice
from lightning_attnbal.allocate._bandit import BanditAllocator
from lightning_attnbal.allocate._baselines import (
    FullAllocator,
    LastKAllocator,
    RandomAllocator,
    UniformAllocator,
)
from lightning_attnbal.allocate._errors import InfeasibleMemoryError
from lightning_attnbal.allocate._forecast import CurvePrior, Forecast, Outcome
from lightning_attnbal.allocate._forecast_allocator import ForecastAllocator
from lightning_attnbal.allocate._frontier import frontier
from lightning_attnbal.allocate._frontier_allocator import FrontierAllocator
from lightning_attnbal.allocate._levels import full_levels, trained_units
from lightning_attnbal.allocate._limits import Limits
from lightning_attnbal.allocate._progress import Progress, Segment, merged
from lightning_attnbal.allocate._solution import Frontier, Solution
from lightning_attnbal.allocate._solve import solve, solve_exact, solve_lagrangian

__all__ = [
    "Allocator",
    "BanditAllocator",
    "Choice",
    "CurvePrior",
    "Forecast",
    "ForecastAllocator",
    "Frontier",
    "FrontierAllocator",
    "FullAllocator",
    "InfeasibleMemoryError",
    "LastKAllocator",
    "Limits",
    "Outcome",
    "Progress",
    "RandomAllocator",
    "Segment",
    "Solution",
    "UniformAllocator",
    "frontier",
    "full_levels",
    "merged",
    "solve",
    "solve_exact",
    "solve_lagrangian",
    "trained_units",
]
