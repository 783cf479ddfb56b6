"""The Lightning side: the callback that orchestrates meter, allocator and applier."""

from lightning_attnbal.callbacks._balancer import AttentionBalancer
from lightning_attnbal.callbacks._decision import Decision

__all__ = ["AttentionBalancer", "Decision"]
