"""Why something cannot be cached."""

from __future__ import annotations


class NotCacheableError(Exception):
    """What a prefix computes cannot be stored; the message is the reason."""
