"""Several tasks on one budget: which task steps next, what its step is worth to the others."""

from lightning_attnbal.multitask._affinity import AffinityMeter
from lightning_attnbal.multitask._affinity_gramian import GramianEngine, gramian_affinity
from lightning_attnbal.multitask._affinity_matrix import (
    Affinity,
    affinity_matrix,
    step_equivalents,
)
from lightning_attnbal.multitask._balancing import LossBalancer
from lightning_attnbal.multitask._gains import ForecastGain, Outlook
from lightning_attnbal.multitask._gradients import jacobian_backward, make_aggregator
from lightning_attnbal.multitask._joint import allocate_tasks
from lightning_attnbal.multitask._joint_coupled import (
    CoupledSolution,
    Equivalents,
    Mix,
    allocate_coupled,
    help_from_others,
)
from lightning_attnbal.multitask._joint_terms import Gain, PlanGain, TaskSolution, TaskTerms
from lightning_attnbal.multitask._loader import TaskLoader
from lightning_attnbal.multitask._order import apportion, deal, interleave
from lightning_attnbal.multitask._rules import ShareRule, TaskStatus
from lightning_attnbal.multitask._rules_loss import BanditShares, GradNormShares, Uncertainty
from lightning_attnbal.multitask._rules_modifiers import Bounded, Stopping
from lightning_attnbal.multitask._rules_static import Proportional, RoundRobin, Temperature, Uniform
from lightning_attnbal.multitask._stream import TaskStream
from lightning_attnbal.multitask._worth import task_worth

__all__ = [
    "Affinity",
    "AffinityMeter",
    "BanditShares",
    "Bounded",
    "CoupledSolution",
    "Equivalents",
    "ForecastGain",
    "Gain",
    "GradNormShares",
    "GramianEngine",
    "LossBalancer",
    "Mix",
    "Outlook",
    "PlanGain",
    "Proportional",
    "RoundRobin",
    "ShareRule",
    "Stopping",
    "TaskLoader",
    "TaskSolution",
    "TaskStatus",
    "TaskStream",
    "TaskTerms",
    "Temperature",
    "Uncertainty",
    "Uniform",
    "affinity_matrix",
    "allocate_coupled",
    "allocate_tasks",
    "apportion",
    "deal",
    "gramian_affinity",
    "help_from_others",
    "interleave",
    "jacobian_backward",
    "make_aggregator",
    "step_equivalents",
    "task_worth",
]
