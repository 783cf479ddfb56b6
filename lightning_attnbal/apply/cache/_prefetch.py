"""Brings rows from disk into memory before they are asked for."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable

from torch import Tensor

from lightning_attnbal.apply.cache._index import Row

_FRESH = 32  # requests: younger rows are kept, since they will be read before newer ones


class Prefetcher:
    """One thread that reads requested rows in order; a row that cannot be read is just not there.

    When the staging area is full, rows of requests long past go; newer requests wait for `take`
    rather than push out what is read before them.

    Args:
        limit: bytes of the staging area.
    """

    def __init__(self, limit: int) -> None:
        self.num_bytes = 0  # fetched so far
        self._limit = limit
        self._changed = threading.Condition()
        self._waiting: OrderedDict[Row, int] = OrderedDict()
        self._staged: OrderedDict[Row, tuple[int, Tensor]] = OrderedDict()
        self._used = 0
        self._request = 0
        self._reading: Row | None = None
        self._thread: threading.Thread | None = None
        self._is_closed = False

    def request(self, rows: Iterable[Row]) -> None:
        """Read these rows soon; returns at once."""
        with self._changed:
            if self._is_closed:
                return
            self._request += 1
            self._forget_stale()
            for row in rows:
                if row not in self._staged and row != self._reading:
                    self._waiting[row] = self._request
                    self._waiting.move_to_end(row)
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._work, name="attnbal-prefetch", daemon=True
                )
                self._thread.start()
            self._changed.notify_all()

    def take(self, row: Row) -> Tensor | None:
        """The bytes of a row if they are here; whether or not, it need not be fetched any more."""
        with self._changed:
            self._waiting.pop(row, None)
            if self._reading == row:
                self._reading = None
            _, data = self._staged.pop(row, (0, None))
            if data is not None:
                self._used -= row.layout.num_bytes
                self._changed.notify_all()
            return data

    def close(self) -> None:
        """Stop the thread and forget what was fetched."""
        with self._changed:
            self._is_closed = True
            self._waiting.clear()
            self._staged.clear()
            self._reading, self._used = None, 0
            self._changed.notify_all()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def _forget_stale(self) -> None:
        oldest = self._request - _FRESH
        while self._waiting and next(iter(self._waiting.values())) <= oldest:
            self._waiting.popitem(last=False)
        while self._staged and next(iter(self._staged.values()))[0] <= oldest:
            row, _ = self._staged.popitem(last=False)
            self._used -= row.layout.num_bytes

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._is_closed or self._next() is not None)
                if self._is_closed:
                    return
                row, asked = self._waiting.popitem(last=False)
                self._reading = row
            try:
                data = row.load()
            except (MemoryError, RuntimeError):  # no memory: `read` will say so if that lasts
                data = None
            with self._changed:
                if data is not None and self._reading == row:  # else it was taken meanwhile
                    self._staged[row] = (asked, data)
                    self._used += row.layout.num_bytes
                    self.num_bytes += row.layout.num_bytes
                self._reading = None

    def _next(self) -> Row | None:
        """The first row that waits, if there is room for it; one too large for ever is let go."""
        while self._waiting:
            row = next(iter(self._waiting))
            if row.layout.num_bytes <= self._limit:
                return row if self._used + row.layout.num_bytes <= self._limit else None
            del self._waiting[row]
        return None
