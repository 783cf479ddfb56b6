"""Plan -> model: cache, freeze and detach units of any PyTorch model; always undoable."""

from lightning_attnbal.apply._applier import PlanApplier
from lightning_attnbal.apply._detach import can_detach, why_not_detachable
from lightning_attnbal.apply.cache import (
    ActivationStore,
    CacheCounts,
    CacheSettings,
    FixedViews,
    PrefixCache,
    StoreStats,
)

__all__ = [
    "ActivationStore",
    "CacheCounts",
    "CacheSettings",
    "FixedViews",
    "PlanApplier",
    "PrefixCache",
    "StoreStats",
    "can_detach",
    "why_not_detachable",
]
