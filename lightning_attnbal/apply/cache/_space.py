"""One namespace of a store."""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_attnbal.apply.cache._files import FileSlab
from lightning_attnbal.apply.cache._index import Row
from lightning_attnbal.apply.cache._rows import RowTable
from lightning_attnbal.apply.cache._tiers import Tiers


class Space:
    """Rows of tensors under byte keys, made by `ActivationStore.space`.

    All rows have the same number of tensors and the same dtypes; shapes may differ from row to row.
    A row never changes. Rows that could not be read, or whose space had to make room, are missing.

    Example:
        >>> from lightning_attnbal.apply.cache import ActivationStore
        >>> with ActivationStore(ram="1MiB") as store:
        ...     space = store.space("encoder.2")
        ...     space.put([b"a", b"b"], [[torch.ones(2, 3)], [torch.ones(4, 3)]])
        ...     batch = torch.zeros(2, 4, 3)
        ...     space.read([b"b", b"c"], [[batch[0]], [batch[1]]])
        2
        [1]
        >>> batch.sum((1, 2))
        tensor([12.,  0.])
    """

    def __init__(self, rows: RowTable, tiers: Tiers) -> None:
        self._rows = rows
        self._tiers = tiers

    @property
    def name(self) -> str:
        """What it was opened as."""
        return self._rows.name

    def __len__(self) -> int:
        return len(self._rows)

    def missing(self, keys: Sequence[bytes]) -> list[int]:
        """Positions of the keys whose row is not stored."""
        with self._tiers.lock:
            return [i for i, key in enumerate(keys) if key not in self._rows]

    def shapes(self, key: bytes) -> tuple[tuple[int, ...], ...]:
        """Shape of each tensor of a row.

        Raises:
            KeyError: the row is not stored.
        """
        with self._tiers.lock:
            row = self._rows.find(key)
        if row is None:
            msg = f"Expected `key` to be stored in space {self.name!r}, but got {key!r}."
            raise KeyError(msg)
        return row.layout.shapes

    def put(self, keys: Sequence[bytes], rows: Sequence[Sequence[Tensor]]) -> int:
        """Store copies of rows that are not stored yet, as far as there is room.

        Args:
            keys: one per row.
            rows: the tensors of each, of any shape, strides and device.

        Returns:
            How many rows were stored.

        Raises:
            ValueError: keys and rows differ in number, or rows in their dtypes.
            TypeError: a key is not bytes, or a tensor is sparse or of an unusual dtype.
        """
        _check_number(keys, "rows", rows)
        start, stored = time.perf_counter(), 0
        with self._tiers.lock, torch.no_grad():
            self._rows.last_used = self._tiers.tick()
            for row in rows[:1]:
                self._rows.expect(row)
            for key, row in zip(keys, rows, strict=True):
                if key not in self._rows and self._rows.put(_checked(key), row):
                    stored += 1
            self._tiers.figures.seconds_written += time.perf_counter() - start
        return stored

    def read(self, keys: Sequence[bytes], out: Sequence[Sequence[Tensor]]) -> list[int]:
        """Copy rows into tensors.

        Args:
            keys: one per row.
            out: for each row its tensors, of the shapes of the row; strides and device are free,
                the dtype is that of the row or, for floating ones, any floating one.

        Returns:
            Positions of rows that could not be delivered; they are missing from now on.

        Raises:
            ValueError: keys and rows differ in number, or a tensor cannot hold what is stored.
        """
        _check_number(keys, "out", out)
        start, undelivered, num_bytes = time.perf_counter(), [], 0
        with self._tiers.lock:
            self._rows.last_used = self._tiers.tick()
            rows = [self._rows.find(key) for key in keys]
        with torch.no_grad():  # without the lock: rows do not change, and are there while in use
            for i, row in enumerate(rows):
                if row is not None and self._deliver(keys[i], row, out[i]):
                    num_bytes += row.layout.num_bytes
                else:
                    undelivered.append(i)
        with self._tiers.lock:
            self._tiers.figures.bytes_read += num_bytes
            self._tiers.figures.seconds_read += time.perf_counter() - start
        return undelivered

    def prefetch(self, keys: Sequence[bytes]) -> None:
        """Start reading rows that are on disk, so that `read` need not wait for them.

        Ask one or two batches ahead: what does not fit in the staging area (an eighth of the RAM,
        at most 256 MiB) is not fetched before there is room.
        """
        with self._tiers.lock:
            rows = list(self._rows.on_disk(keys))
        if rows:
            self._tiers.prefetcher.request(rows)

    def refresh(self) -> None:
        """Look for rows that other processes sealed in the meantime."""
        with self._tiers.lock:
            self._rows.refresh()

    def _deliver(self, key: bytes, row: Row, out: Sequence[Tensor]) -> bool:
        problem = row.layout.misfit(out)
        if problem is not None:
            raise ValueError(problem)
        is_file = isinstance(row.segment, FileSlab)
        data = self._tiers.prefetcher.take(row) if is_file else None
        if data is None:
            data = row.load()
        if data is None:
            with self._tiers.lock:
                self._rows.lose(key, row)
            return False
        row.layout.decode(data, out)
        return True


def _check_number(keys: Sequence[bytes], name: str, rows: Sequence[Sequence[Tensor]]) -> None:
    if len(keys) != len(rows):
        msg = f"Expected `{name}` to have one row per key ({len(keys)}), but got {len(rows)}."
        raise ValueError(msg)


def _checked(key: object) -> bytes:
    if not isinstance(key, bytes):
        msg = f"Expected `keys` to be bytes, but got {key!r} of type {type(key).__name__}."
        raise TypeError(msg)
    return key
