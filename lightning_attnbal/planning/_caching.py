"""What caching a prefix takes: room, the filling, the reading."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lightning_attnbal.apply import ActivationStore
from lightning_attnbal.core import Caching, UnitLoad

_LEAST_ROOM = 0.5  # of an epoch; with less, most samples would be computed all the same
_BYTES_PER_SECOND = 1e9  # read from memory, until it was measured
_FEW_BYTES = 2**24  # read before a bandwidth is believed
_WIDTHS = {"exact": 1.0, "float32": 1.0, "float16": 0.5, "bfloat16": 0.5, "int8": 0.25}


def caching_terms(
    loads: Sequence[UnitLoad],
    store: ActivationStore,
    epoch_batches: int,
    *,
    is_timed: bool,
    fill: Callable[[Sequence[str]], float] | None = None,
    is_refused: Callable[[Sequence[str]], bool] | None = None,
) -> dict[str, Caching]:
    """By unit, what caching the prefix that ends with it takes; those without room are missing.

    Args:
        loads: forward order.
        store: where rows would go.
        epoch_batches: batches per epoch, in [1, inf).
        is_timed: whether costs are seconds, so that reading has one.
        fill: batches that must still be run through a prefix, by the names of its units; None: a
            whole epoch, as before a run.
        is_refused: whether a prefix is known not to be cacheable; None: nothing is known yet.

    Example:
        >>> from lightning_attnbal.core import PassCost, Unit, UnitKind
        >>> unit = Unit("low", 0, UnitKind.BLOCK, ("low",), ("low.weight",), 4)
        >>> load = UnitLoad(unit, flops=PassCost(forward=8.0), boundary_bytes=2**10)
        >>> with ActivationStore(ram="1MiB") as store:
        ...     terms = caching_terms([load], store, 2048, is_timed=False)
        >>> round(terms["low"].miss, 2), terms["low"].fill
        (0.5, 2048)
    """
    names = [load.unit.name for load in loads]
    needed = [load.boundary_bytes * epoch_batches * _WIDTHS[store.dtype] for load in loads]
    rooms = [min(1.0, store.capacity / size) if size else 1.0 for size in needed]
    fits = [
        i + 1
        for i, room in enumerate(rooms)
        if room >= _LEAST_ROOM and not (is_refused and is_refused(names[: i + 1]))
    ]
    speed = _bytes_per_second(store)
    return {
        names[i]: Caching(
            miss=1.0 - rooms[i],
            fill=epoch_batches if fill is None else fill(names[: i + 1]),
            read=loads[i].boundary_bytes / speed if is_timed else 0.0,
        )
        for i in range(max(fits, default=0))
    }


def _bytes_per_second(store: ActivationStore) -> float:
    stats = store.stats
    if stats.bytes_read < _FEW_BYTES:
        return _BYTES_PER_SECOND
    return stats.bytes_read / stats.seconds_read
