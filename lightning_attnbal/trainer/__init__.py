"""The learning rate over budget spent: own shapes, or the user's schedulers paced by the budget."""

from lightning_attnbal.trainer._jacobian import JacobianBackward
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
from lightning_attnbal.trainer._task_data import TaskData, serve_tasks

__all__ = [
    "BudgetLR",
    "ConstantSchedule",
    "CosineSchedule",
    "DepthRate",
    "JacobianBackward",
    "LinearSchedule",
    "PlanRate",
    "REXSchedule",
    "RateRule",
    "Schedule",
    "SchedulerPacer",
    "TaskData",
    "make_schedule",
    "serve_tasks",
]
