"""The Lightning side: the callback that orchestrates meter, allocator and applier."""

from lightning_attnbal.callbacks._balancer import AttentionBalancer
from lightning_attnbal.callbacks._decision import Decision
from lightning_attnbal.callbacks._doctor import diagnose_trainer
from lightning_attnbal.callbacks._task_scheduler import TaskScheduler
from lightning_attnbal.callbacks._task_settings import TaskSettings

__all__ = ["AttentionBalancer", "Decision", "TaskScheduler", "TaskSettings", "diagnose_trainer"]
