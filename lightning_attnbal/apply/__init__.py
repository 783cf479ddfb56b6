"""Plan -> model: freeze and detach units of any PyTorch model; always undoable."""

from lightning_attnbal.apply._applier import PlanApplier
from lightning_attnbal.apply._detach import can_detach, why_not_detachable

__all__ = ["PlanApplier", "can_detach", "why_not_detachable"]
