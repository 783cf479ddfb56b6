"""What the spaces of a store share: room in RAM and on disk, and the figures."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Protocol

from lightning_attnbal.apply.cache._codec import Encoding
from lightning_attnbal.apply.cache._disk import Drawer
from lightning_attnbal.apply.cache._files import Files
from lightning_attnbal.apply.cache._prefetch import Prefetcher

_log = logging.getLogger("lightning_attnbal.apply.cache._store")
_SLAB_BYTES = 64 * 2**20
_STAGING_BYTES = 256 * 2**20  # at most
_STAGING_WITHOUT_RAM = 16 * 2**20
_MAX_FILES = 128  # of one process, unless they would be smaller than 64 MiB


class Tier(Enum):
    """Where a row goes."""

    RAM = "ram"
    DISK = "disk"


class Member(Protocol):
    """The rows of a space, as far as room is concerned."""

    name: str
    last_used: int

    def clear(self) -> None:
        """Forget every row and delete own files."""
        ...

    def close(self, *, keep: bool) -> None:
        """Forget every row; own files stay if they are to be kept."""
        ...

    def __len__(self) -> int: ...


@dataclass(slots=True, kw_only=True)
class Use:
    """Rows and bytes: of rows in RAM, of the index, of rows in own files."""

    rows: int = 0
    ram: int = 0
    index: int = 0
    disk: int = 0


@dataclass(slots=True, kw_only=True)
class Figures:
    """What happened since the store was made; seconds of wall time."""

    bytes_read: int = 0
    seconds_read: float = 0.0
    bytes_written: int = 0
    seconds_written: float = 0.0
    rows_refused: int = 0
    error: float = 0.0
    problems: dict[str, str] = field(default_factory=dict)


class Tiers:
    """Decides where a row goes and who has to leave for it.

    Args:
        ram: bytes for rows, index and staging area; 0 keeps rows on disk only and leaves the index
            (about 200 bytes per row) unbounded.
        disk: bytes for rows in own files.
        encoding: how rows are stored.
        root: where files go, None for no files.
        is_private: nobody else looks there.
    """

    def __init__(
        self, *, ram: int, disk: int, encoding: Encoding, root: Path | None, is_private: bool
    ) -> None:
        self.lock = threading.RLock()
        self.encoding = encoding
        self.figures, self.use = Figures(), Use()
        self.files = Files()
        self.members: list[Member] = []
        self.preferred: frozenset[str] = frozenset()
        self.is_closed = False
        staging = 0 if root is None else min(_STAGING_BYTES, ram // 8)
        self.prefetcher = Prefetcher(staging if ram else _STAGING_WITHOUT_RAM)
        self._root, self._is_private = root, is_private
        self._ram, self._disk = ram, disk
        self._for_rows = ram - staging
        self._takes_ram = True
        self._clock = 0

    @property
    def capacity(self) -> int:
        """Bytes of rows and index that can be held."""
        return self._for_rows + self._disk

    def tick(self) -> int:
        """A number larger than all before."""
        self._clock += 1
        return self._clock

    def note(self, kind: str, problem: str) -> None:
        """Say a problem; later ones of the same kind are not said."""
        with self.lock:
            if kind not in self.figures.problems:
                self.figures.problems[kind] = problem
                _log.warning("%s", problem)

    def charge(
        self, use: Use, *, rows: int = 0, ram: int = 0, index: int = 0, disk: int = 0
    ) -> None:
        """Add to what a space uses, and to what all use."""
        for each in (use, self.use):
            each.rows += rows
            each.ram += ram
            each.index += index
            each.disk += disk

    def release(self, use: Use) -> None:
        """The space uses nothing any more."""
        self.charge(use, rows=-use.rows, ram=-use.ram, index=-use.index, disk=-use.disk)

    def drawer(self, space: str) -> Drawer | None:
        """The files of a space, None if there is no folder."""
        if self._root is None:
            return None
        return Drawer(
            self._root,
            space,
            self.encoding,
            slab_bytes=min(max(_SLAB_BYTES, self._disk // _MAX_FILES), self._disk // 8),
            files=self.files,
            is_private=self._is_private,
        )

    def ram_slab_bytes(self, num_bytes: int) -> int:
        """Size of a new piece of memory whose first row has so many bytes."""
        return max(num_bytes, min(_SLAB_BYTES, self._ram // 16))

    def place(self, member: Member, num_bytes: int, index_bytes: int) -> Tier | None:
        """Where a row goes, None if there is no room for it; other spaces may have to leave.

        RAM comes first, then the disk, then whole spaces that the plan does not need are given up,
        least recently used first. Single rows are never given up: each row of an epoch is needed
        once per epoch, so with one row too few the least recently used one would always be the one
        needed next, and nothing would ever be found.
        """
        while not self.is_closed:
            if self._takes_ram and self._fits_ram(num_bytes, index_bytes):
                return Tier.RAM
            if self.fits_disk(num_bytes) and self.fits_index(index_bytes):
                return Tier.DISK
            if num_bytes > max(self._for_rows, self._disk) or not self._give_up(member):
                return None
        return None

    def fits_disk(self, num_bytes: int) -> bool:
        """Whether the disk has room for a row."""
        return self._disk > 0 and self.use.disk + num_bytes <= self._disk

    def fits_index(self, index_bytes: int) -> bool:
        """Whether the index may grow so much."""
        return self._ram == 0 or self.use.ram + self.use.index + index_bytes <= self._for_rows

    def no_ram(self, error: OSError) -> None:
        """The system has no memory left: what is there is all there will be."""
        self.note("ram", f"No more rows are kept in RAM: {error}.")
        self._takes_ram = False

    def no_disk(self, error: OSError) -> None:
        """From now on nothing is written to disk; what is there can be read."""
        self.note("disk", f"No more rows are written to disk: {error}.")
        self._disk = 0

    def _fits_ram(self, num_bytes: int, index_bytes: int) -> bool:
        left = max(0, self._disk - self.use.disk)  # rows to come there need an index in RAM too
        ahead = min(self._ram // 4, left // max(1, num_bytes) * index_bytes)
        return self.use.ram + self.use.index + num_bytes + index_bytes + ahead <= self._for_rows

    def _give_up(self, member: Member) -> bool:
        """Forget the least recently used space that is not needed; False if there is none."""
        others = [m for m in self.members if m is not member and m.name not in self.preferred]
        others = [m for m in others if len(m)]
        if not others:
            return False
        min(others, key=lambda other: other.last_used).clear()
        return True
