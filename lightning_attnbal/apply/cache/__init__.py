"""Outputs of a frozen model prefix, stored per sample and read back in later epochs."""

from lightning_attnbal.apply.cache._space import Space
from lightning_attnbal.apply.cache._store import ActivationStore, StoreStats

__all__ = ["ActivationStore", "Space", "StoreStats"]
