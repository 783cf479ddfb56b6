"""What attention heads do: how widely they look, and how much the loss depends on them."""

from lightning_attnbal.measure.attention._meter import (
    AttentionMeter,
    AttentionStatistics,
    measure_attention,
)
from lightning_attnbal.measure.attention._statistics import attention_entropy, head_importance

__all__ = [
    "AttentionMeter",
    "AttentionStatistics",
    "attention_entropy",
    "head_importance",
    "measure_attention",
]
