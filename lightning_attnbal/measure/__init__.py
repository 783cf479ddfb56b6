"""What every unit costs, and what training it is worth. Torch only, no Trainer."""

from lightning_attnbal.measure._average import average_loads
from lightning_attnbal.measure._contribution import (
    Contribution,
    GradientUpdateMeter,
    gradient_update,
)
from lightning_attnbal.measure._discover import discover_units, order_units
from lightning_attnbal.measure._discover_groups import UnitSpec
from lightning_attnbal.measure._flops import count_fixed, count_units
from lightning_attnbal.measure._graph import CriticalPath, bottlenecks, critical_path
from lightning_attnbal.measure._plan_cost import plan_cost
from lightning_attnbal.measure._problem import build_problem
from lightning_attnbal.measure._profile import profile
from lightning_attnbal.measure._records import Trace
from lightning_attnbal.measure._replay import flop_counter
from lightning_attnbal.measure._report import LoadReport
from lightning_attnbal.measure._seconds import time_units
from lightning_attnbal.measure._step_time import StepTimeModel, load_from_dict, load_to_dict
from lightning_attnbal.measure._trace import UnitTracer

__all__ = [
    "Contribution",
    "CriticalPath",
    "GradientUpdateMeter",
    "LoadReport",
    "StepTimeModel",
    "Trace",
    "UnitSpec",
    "UnitTracer",
    "average_loads",
    "bottlenecks",
    "build_problem",
    "count_fixed",
    "count_units",
    "critical_path",
    "discover_units",
    "flop_counter",
    "gradient_update",
    "load_from_dict",
    "load_to_dict",
    "order_units",
    "plan_cost",
    "profile",
    "time_units",
]
