"""The rows of one space: where they are, and where new ones go."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from lightning_attnbal.apply.cache._codec import Codec, Layout
from lightning_attnbal.apply.cache._files import FileSlab
from lightning_attnbal.apply.cache._index import Index, Row
from lightning_attnbal.apply.cache._sealed import Sealed
from lightning_attnbal.apply.cache._slabs import RamSlab
from lightning_attnbal.apply.cache._tiers import Tier, Tiers, Use

_ALWAYS, _EVERY = 64, 16  # rows whose error is measured: the first ones, then one in so many


class RowTable:
    """Stores and finds the rows of a space; whoever calls holds the lock of `tiers`.

    Args:
        name: of the space.
        tiers: room for them.
    """

    def __init__(self, name: str, tiers: Tiers) -> None:
        self.name = name
        self.last_used = 0
        self._tiers = tiers
        self._drawer = tiers.drawer(name)
        self._use = Use()
        self._num_measured = 0
        self._start()
        if self._drawer is not None:
            self._drawer.sweep()

    def _start(self) -> None:
        self._index = Index()
        self._codec = Codec(self._tiers.encoding)
        self._slab: RamSlab | None = None
        self._dtypes: tuple[torch.dtype, ...] | None = None
        self._is_given = False  # whether the dtypes are those of a row that was put here
        self._error = 0.0

    def __len__(self) -> int:
        return len(self._index)

    def __contains__(self, key: bytes) -> bool:
        return key in self._index

    def find(self, key: bytes) -> Row | None:
        """Where a row lies, None if it is not stored."""
        return self._index.find(key)

    def on_disk(self, keys: Sequence[bytes]) -> Iterator[Row]:
        """Those of the rows that lie in files."""
        for key in keys:
            row = self._index.find(key)
            if row is not None and isinstance(row.segment, FileSlab):
                yield row

    def expect(self, tensors: Sequence[Tensor]) -> None:
        """Rows like this one are coming; those of other dtypes that others stored are forgotten.

        Raises:
            ValueError: rows of other dtypes have been put here.
        """
        self._agree(self._codec.layout(tensors))

    def put(self, key: bytes, tensors: Sequence[Tensor]) -> bool:
        """Store a row that is not stored; False if there is no room.

        Raises:
            ValueError: its dtypes are not those of the other rows.
        """
        layout = self._codec.layout(tensors)
        self._agree(layout)
        stored = self._put(key, tensors, layout)
        if not stored and not self._tiers.is_closed:
            self._tiers.figures.rows_refused += 1
        return stored

    def lose(self, key: bytes, row: Row) -> None:
        """Forget a row that cannot be read."""
        if self._index.find(key) == row:
            self._index.remove(key)
            self._tiers.charge(self._use, rows=-1)
        path = row.segment.path if isinstance(row.segment, FileSlab) else "RAM"
        problem = f"Rows in {path} are damaged or gone; they will be computed again."
        self._tiers.note(f"lost {path}", problem)

    def refresh(self) -> None:
        """Add what others sealed since the last look."""
        if self._drawer is None or self._tiers.is_closed:
            return
        for found in self._drawer.find():
            if isinstance(found, str):
                self._tiers.note(found, found)
            else:
                self._adopt(*found)

    def clear(self) -> None:
        """Forget every row, free the memory and delete own files."""
        self.close(keep=False)

    def close(self, *, keep: bool) -> None:
        """Forget every row; to `keep` is to seal all in own files first, as far as they fit."""
        if keep:
            self._save()
        self._forget()
        if self._drawer is not None:
            self._drawer.remove(keep_sealed=keep)

    def _save(self) -> None:
        for key, row in self._index.items():
            data = row.load() if isinstance(row.segment, RamSlab) else None
            if data is not None and self._tiers.fits_disk(row.layout.num_bytes):
                self._append(key, row.layout, data)
        self._seal()

    def _forget(self) -> None:
        self._tiers.release(self._use)
        self._start()

    def _agree(self, layout: Layout) -> None:
        if self._is_given and layout.dtypes != self._dtypes:
            msg = (
                f"Expected rows of dtypes {self._dtypes} in space {self.name!r}, "
                f"but got {layout.dtypes}."
            )
            raise ValueError(msg)
        if not self._is_given and self._dtypes not in (None, layout.dtypes):
            problem = f"Forgot rows of dtypes {self._dtypes} found for space {self.name!r}."
            self._tiers.note(f"dtypes {self.name}", problem)
            self._forget()
        self._dtypes, self._is_given = layout.dtypes, True

    def _put(self, key: bytes, tensors: Sequence[Tensor], layout: Layout) -> bool:
        num_bytes, cost = layout.num_bytes, self._index.cost(key, layout)
        tier = self._tiers.place(self, num_bytes, cost)
        slab = self._ram_slab(num_bytes) if tier is Tier.RAM else None
        if tier is None:
            return False
        if tier is Tier.RAM and slab is None:
            return self._put(key, tensors, layout)  # on disk, now that RAM is off
        data = torch.empty(num_bytes, dtype=torch.uint8) if slab is None else slab.next(num_bytes)
        if not layout.encode(tensors, data):
            return self._put(key, tensors, self._codec.layout(tensors, exact=True))
        if slab is None:
            row = self._append(key, layout, data)
        else:
            row = Row(slab, slab.commit(num_bytes), layout)
            self._tiers.charge(self._use, ram=num_bytes)
        if row is None:
            return False
        self._index.add(key, row)
        self._tiers.charge(self._use, rows=1, index=cost)
        self._measure(tensors, layout, data)
        self._tiers.figures.bytes_written += num_bytes
        return True

    def _ram_slab(self, num_bytes: int) -> RamSlab | None:
        """One with room for a row; None if the system has no memory."""
        if self._slab is None or not self._slab.has_room(num_bytes):
            try:
                self._slab = RamSlab(self._tiers.ram_slab_bytes(num_bytes))
            except OSError as error:
                self._tiers.no_ram(error)
                return None
        return self._slab

    def _append(self, key: bytes, layout: Layout, data: Tensor) -> Row | None:
        """Write a row to disk; None, and no more is written, if the disk does not take it."""
        if self._drawer is None:
            return None
        try:
            row = self._drawer.append(key, layout, data)
        except OSError as error:
            self._tiers.no_disk(error)
            return None
        self._tiers.charge(self._use, disk=layout.num_bytes)
        if self._drawer.is_full():
            self._seal()
        return row

    def _seal(self) -> None:
        if self._drawer is not None:
            try:
                self._drawer.seal(self._error)
            except OSError as error:
                self._tiers.no_disk(error)

    def _measure(self, tensors: Sequence[Tensor], layout: Layout, data: Tensor) -> None:
        if not layout.is_exact:
            if self._num_measured < _ALWAYS or self._num_measured % _EVERY == 0:
                self._saw_error(layout.error(tensors, data))
            self._num_measured += 1

    def _saw_error(self, error: float) -> None:
        self._error = max(self._error, error)
        self._tiers.figures.error = max(self._tiers.figures.error, error)

    def _adopt(self, slab: FileSlab, sealed: Sealed) -> None:
        """Rows that another process stored."""
        if self._dtypes not in (None, sealed.dtypes) and sealed.dtypes is not None:
            problem = f"Ignored {slab.path}: its rows are of dtypes {sealed.dtypes}."
            self._tiers.note(problem, problem)
            return
        self._dtypes = sealed.dtypes or self._dtypes
        self._saw_error(sealed.error)
        for key, offset, one, crc in sealed.rows:
            layout = self._codec.shared(one)
            cost = self._index.cost(key, layout)
            if key not in self._index and self._tiers.fits_index(cost):
                self._index.add(key, Row(slab, offset, layout, crc))
                self._tiers.charge(self._use, rows=1, index=cost)
