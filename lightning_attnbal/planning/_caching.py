"""What caching a prefix would take, as far as sizes can tell before a run."""

from __future__ import annotations

from collections.abc import Sequence

from lightning_attnbal.apply import CacheSettings
from lightning_attnbal.core import Caching, UnitLoad

_LEAST_ROOM = 0.5  # of an epoch, as in a run
_BYTES_PER_SECOND = 1e9  # read from memory, as a run believes until it has measured
_WIDTHS = {"exact": 1.0, "float32": 1.0, "float16": 0.5, "bfloat16": 0.5, "int8": 0.25}


def caching_terms(
    loads: Sequence[UnitLoad], epoch_batches: int, settings: CacheSettings, *, is_timed: bool
) -> dict[str, Caching]:
    """By unit, what caching the prefix that ends with it takes; units without room are missing.

    Whether a prefix is deterministic, and so can be cached at all, only the run finds out.

    Args:
        loads: forward order.
        epoch_batches: batches per epoch, in [1, inf).
        settings: room and precision.
        is_timed: whether costs are seconds, so that reading has one.
    """
    with settings.open() as store:
        capacity, width = store.capacity, _WIDTHS[store.dtype]
    needed = [load.boundary_bytes * epoch_batches * width for load in loads]
    rooms = [min(1.0, capacity / size) if size else 1.0 for size in needed]
    deepest = max((i + 1 for i, room in enumerate(rooms) if room >= _LEAST_ROOM), default=0)
    return {
        load.unit.name: Caching(
            miss=1.0 - room,
            fill=epoch_batches,
            read=load.boundary_bytes / _BYTES_PER_SECOND if is_timed else 0.0,
        )
        for load, room in list(zip(loads, rooms, strict=True))[:deepest]
    }
