"""Slab files: appended to by their owner, read by anybody.

Files are never mapped. A write to a mapping on a full disk, and a read from a mapping of a file
that somebody truncated, end the process with SIGBUS; `pwrite` raises `OSError` and `preadv` returns
fewer bytes, and both can be handled.
"""

from __future__ import annotations

import contextlib
import os
import stat
import sys
import threading
import zlib
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_attnbal.apply.cache._codec import Layout

_MAX_OPEN = 64  # of 1,024 that a process may usually have
READ = os.O_RDONLY
for _flag in ("O_CLOEXEC", "O_NOFOLLOW", "O_NONBLOCK"):  # a FIFO would block without the last
    READ |= getattr(os, _flag, 0)
_CREATE = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0)


class _Descriptor:
    """Closed with the last reference, so never under a thread that reads from it."""

    def __init__(self, path: Path) -> None:
        self.number = os.open(path, READ)
        if not stat.S_ISREG(os.fstat(self.number).st_mode):
            msg = f"{path} is not a file"
            raise OSError(msg)

    def __del__(self) -> None:
        if "number" in vars(self):
            os.close(self.number)


class Files:
    """Reads from files by name and keeps the last used ones open."""

    def __init__(self) -> None:
        self._open: OrderedDict[Path, _Descriptor] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, path: Path, offset: int, num_bytes: int) -> Tensor | None:
        """So many bytes, None if the file has fewer or cannot be read."""
        data = torch.empty(num_bytes, dtype=torch.uint8)
        view, done = _view(data), 0
        try:
            file = self._descriptor(path)
            while done < num_bytes:
                count = os.preadv(file.number, [view[done:]], offset + done)
                if not count:
                    return None
                done += count
        except OSError:
            return None
        return data

    def forget(self, path: Path) -> None:
        """Do not keep this file open."""
        with self._lock:
            self._open.pop(path, None)

    def close(self) -> None:
        """Keep no file open."""
        with self._lock:
            self._open.clear()

    def _descriptor(self, path: Path) -> _Descriptor:
        with self._lock:
            found = self._open.get(path)
            if found is None:
                found = self._open[path] = _Descriptor(path)
                if len(self._open) > _MAX_OPEN:
                    self._open.popitem(last=False)
            self._open.move_to_end(path)
            return found


class FileSlab:
    """A slab file to read from."""

    def __init__(self, files: Files, path: Path) -> None:
        self.path = path
        self._files = files

    def load(self, offset: int, num_bytes: int, crc: int) -> Tensor | None:
        """The bytes of a row, None if they are gone or damaged."""
        data = self._files.read(self.path, offset, num_bytes)
        return data if data is not None and zlib.crc32(_view(data)) == crc else None


class OwnSlab(FileSlab):
    """A slab file of this process; locked while it is written, so that others see it is in use.

    Raises:
        OSError: the file cannot be made.
    """

    def __init__(self, files: Files, path: Path) -> None:
        super().__init__(files, path)
        self.size = 0
        self.is_sealed = False
        self.rows: list[
            tuple[bytes, int, Layout, int]
        ] = []  # key, offset, CRC-32; until it is done
        self._descriptor = os.open(path, _CREATE, 0o666)
        lock(self._descriptor)

    def append(self, key: bytes, layout: Layout, data: Tensor) -> tuple[int, int]:
        """Write a row at the end: its offset and checksum.

        Raises:
            OSError: it cannot be written; nothing of it can be seen then.
        """
        offset, view, done = self.size, _view(data), 0
        crc = zlib.crc32(view)
        while done < len(view):
            done += os.pwrite(self._descriptor, view[done:], offset + done)
        self.size += len(view)
        self.rows.append((key, offset, layout, crc))
        return offset, crc

    def sync(self) -> None:
        """Wait until the disk has it.

        Raises:
            OSError: the disk has not.
        """
        os.ftruncate(self._descriptor, self.size)  # the rest of a row that did not fit
        os.fsync(self._descriptor)

    def finish(self) -> None:
        """No more rows are coming."""
        self.rows.clear()
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1

    def remove(self) -> None:
        """Delete it, its index first: nobody should find that alone."""
        with contextlib.suppress(OSError):
            self.finish()
        self._files.forget(self.path)
        for suffix in (".json", ".tmp", ".bin"):
            with contextlib.suppress(OSError):
                self.path.with_suffix(suffix).unlink(missing_ok=True)


def _view(data: Tensor) -> memoryview:
    array: Any = data.numpy()  # typed as no buffer, though it is one
    return memoryview(array)


def lock(descriptor: int) -> bool:
    """Whether nobody else holds this file; it is held until it is closed or the process dies."""
    if sys.platform == "win32":
        return False
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
