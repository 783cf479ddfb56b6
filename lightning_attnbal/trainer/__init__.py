"""The learning rate over budget spent: own shapes, or the user's schedulers paced by the budget."""

from lightning_attnbal.trainer._learning_rate import BudgetLR
from lightning_attnbal.trainer._pacing import SchedulerPacer
from lightning_attnbal.trainer._plan_rate import DepthRate, PlanRate, RateRule
from lightning_attnbal.trainer._schedule import (
    ConstantSchedule,
    CosineSchedule,
    LinearSchedule,
    REXSchedule,
    Schedule,
    make_schedule,
)

__all__ = [
    "BudgetLR",
    "ConstantSchedule",
    "CosineSchedule",
    "DepthRate",
    "LinearSchedule",
    "PlanRate",
    "REXSchedule",
    "RateRule",
    "Schedule",
    "SchedulerPacer",
    "make_schedule",
]
