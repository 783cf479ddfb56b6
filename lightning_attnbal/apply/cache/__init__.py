"""Outputs of a frozen model prefix, stored per sample and read back in later epochs."""

from lightning_attnbal.apply.cache._counts import CacheCounts
from lightning_attnbal.apply.cache._memory import default_ram
from lightning_attnbal.apply.cache._prefix import PrefixCache
from lightning_attnbal.apply.cache._settings import CacheSettings
from lightning_attnbal.apply.cache._space import Space
from lightning_attnbal.apply.cache._store import ActivationStore, StoreStats
from lightning_attnbal.apply.cache._views import FixedViews

__all__ = [
    "ActivationStore",
    "CacheCounts",
    "CacheSettings",
    "FixedViews",
    "PrefixCache",
    "Space",
    "StoreStats",
    "default_ram",
]
