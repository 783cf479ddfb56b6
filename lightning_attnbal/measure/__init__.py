"""What every unit costs, and what training it is worth. Torch only, no Trainer."""

from lightning_attnbal.measure._average import average_loads
from lightning_attnbal.measure._discover import discover_units, order_units
from lightning_attnbal.measure._discover_groups import UnitSpec
from lightning_attnbal.measure._flops import count_fixed, count_units
from lightning_attnbal.measure._fresh import fresh_units
from lightning_attnbal.measure._graph import CriticalPath, bottlenecks, critical_path
from lightning_attnbal.measure._plan_cost import plan_cost, unit_costs
from lightning_attnbal.measure._problem import build_problem
from lightning_attnbal.measure._profile import profile, run_model
from lightning_attnbal.measure._records import Trace
from lightning_attnbal.measure._replay import flop_counter
from lightning_attnbal.measure._report import LoadReport
from lightning_attnbal.measure._seconds import time_units
from lightning_attnbal.measure._step_time import StepTimeModel, load_from_dict, load_to_dict
from lightning_attnbal.measure._trace import UnitTracer
from lightning_attnbal.measure.attention import (
    AttentionMeter,
    AttentionStatistics,
    attention_entropy,
    head_importance,
    measure_attention,
)
from lightning_attnbal.measure.contribution import (
    ActivationChangeMeter,
    Contribution,
    ContributionMeter,
    CrossBatchMeter,
    FisherMeter,
    Geometry,
    GradientNormMeter,
    GradientUpdateMeter,
    JointDirection,
    NormOrder,
    PlasticityMeter,
    Reduction,
    RelativeGradientChangeMeter,
    activation_change,
    cross_decrease,
    debiased_decrease,
    fisher_trace,
    geometry,
    gradient_norm,
    gradient_update,
    joint_directions,
    momentum_gain,
    output_entropy,
    plasticity,
    probe_contributions,
    relative_gradient_change,
    untouched,
    update_direction,
)

__all__ = [
    "ActivationChangeMeter",
    "AttentionMeter",
    "AttentionStatistics",
    "Contribution",
    "ContributionMeter",
    "CriticalPath",
    "CrossBatchMeter",
    "FisherMeter",
    "Geometry",
    "GradientNormMeter",
    "GradientUpdateMeter",
    "JointDirection",
    "LoadReport",
    "NormOrder",
    "PlasticityMeter",
    "Reduction",
    "RelativeGradientChangeMeter",
    "StepTimeModel",
    "Trace",
    "UnitSpec",
    "UnitTracer",
    "activation_change",
    "attention_entropy",
    "average_loads",
    "bottlenecks",
    "build_problem",
    "count_fixed",
    "count_units",
    "critical_path",
    "cross_decrease",
    "debiased_decrease",
    "discover_units",
    "fisher_trace",
    "flop_counter",
    "fresh_units",
    "geometry",
    "gradient_norm",
    "gradient_update",
    "head_importance",
    "joint_directions",
    "load_from_dict",
    "load_to_dict",
    "measure_attention",
    "momentum_gain",
    "order_units",
    "output_entropy",
    "plan_cost",
    "plasticity",
    "probe_contributions",
    "profile",
    "relative_gradient_change",
    "run_model",
    "time_units",
    "unit_costs",
    "untouched",
    "update_direction",
]
