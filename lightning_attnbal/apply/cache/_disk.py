"""The files of one space: its own slabs, and those that others sealed."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import socket
from collections.abc import Iterator
from pathlib import Path

from torch import Tensor

from lightning_attnbal.apply.cache._codec import Layout
from lightning_attnbal.apply.cache._files import READ, Files, FileSlab, OwnSlab, lock
from lightning_attnbal.apply.cache._index import Row
from lightning_attnbal.apply.cache._sealed import VERSION, Sealed, dump_index, parse_index

_HOST = hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]
_STEM = re.compile(r"([0-9a-f]{8})-(\d{1,10})-[0-9a-f]{16}")  # host, process, token
_MAX_ROWS = 65_536  # per slab, so that an index stays below 10 MB
_MAX_INDEX = 256 * 2**20  # bytes


class Drawer:
    """The folder of one space.

    A slab becomes visible to others when it is sealed: the data is on disk, then the index appears
    under its name at once. Every process writes files of its own name only.

    Args:
        root: the folder of the store.
        space: name of the space, any text; its hash names the folder, so it cannot lead elsewhere.
        encoding: how rows are stored; rows stored otherwise lie in another folder.
        slab_bytes: size at which a slab is sealed.
        files: reads for all spaces.
        is_private: nobody else looks into the folder, so there is nothing to seal.
    """

    def __init__(
        self,
        root: Path,
        space: str,
        encoding: str,
        *,
        slab_bytes: int,
        files: Files,
        is_private: bool,
    ) -> None:
        name = hashlib.sha256(f"{VERSION}\0{encoding}\0{space}".encode(errors="replace"))
        self._root, self._folder = root, root / name.hexdigest()[:32]
        self._space, self._slab_bytes = space, slab_bytes
        self._files, self._is_private = files, is_private
        self._own: list[OwnSlab] = []
        self._is_open = False  # whether the last one of them takes rows
        self._seen: set[str] = set()

    def append(self, key: bytes, layout: Layout, data: Tensor) -> Row:
        """Write a row.

        Raises:
            OSError: it could not be written.
        """
        if not self._is_open:
            self._own.append(self._new_slab())
            self._is_open = True
        slab = self._own[-1]
        offset, crc = slab.append(key, layout, data)
        return Row(slab, offset, layout, crc)

    def is_full(self) -> bool:
        """Whether the open slab should be sealed before the next row."""
        if not self._is_open:
            return False
        slab = self._own[-1]
        return slab.size >= self._slab_bytes or len(slab.rows) >= _MAX_ROWS

    def seal(self, error: float) -> None:
        """Show the open slab to others.

        Raises:
            OSError: it could not be written; it stays hidden.
        """
        if not self._is_open:
            return
        slab, self._is_open = self._own[-1], False
        try:
            if not self._is_private and slab.rows:
                slab.sync()
                text = dump_index(self._space, slab.rows, error)
                _write_at_once(slab.path.with_suffix(".json"), text)
                slab.is_sealed = True
        finally:
            slab.finish()

    def find(self) -> Iterator[tuple[FileSlab, Sealed] | str]:
        """Slabs that others sealed since the last call; for a bad one a sentence instead."""
        for name in self._names(".json"):
            path = self._folder / name
            if name not in self._seen:
                self._seen.add(name)
                slab = FileSlab(self._files, path.with_suffix(".bin"))
                try:
                    yield slab, parse_index(_read(path), self._space, slab.path.stat().st_size)
                except FileNotFoundError:
                    continue  # its owner has just taken it away
                except (OSError, ValueError, MemoryError) as error:
                    yield f"Ignored {path}: {error}."

    def sweep(self) -> None:
        """Remove what killed processes of this machine left unsealed."""
        for name in self._names(".bin"):
            path = self._folder / name
            if _is_abandoned(path):
                for leftover in (path, path.with_suffix(".tmp")):
                    with contextlib.suppress(OSError):
                        leftover.unlink(missing_ok=True)

    def remove(self, *, keep_sealed: bool = False) -> None:
        """Delete own files, or those of them that nobody can see; and the folder if it is empty."""
        for slab in self._own:
            if not (keep_sealed and slab.is_sealed):
                slab.remove()
        self._own, self._is_open, self._seen = [], False, set()
        with contextlib.suppress(OSError):
            self._folder.rmdir()

    def _new_slab(self) -> OwnSlab:
        stem = f"{_HOST}-{os.getpid()}-{secrets.token_hex(8)}"
        self._seen.add(f"{stem}.json")
        path = self._folder / f"{stem}.bin"
        with contextlib.suppress(FileExistsError):
            self._folder.mkdir()
        try:
            return OwnSlab(self._files, path)
        except FileNotFoundError:  # another process has just removed the folder, which was empty
            self._folder.mkdir(exist_ok=True)
            return OwnSlab(self._files, path)

    def _names(self, suffix: str) -> list[str]:
        with contextlib.suppress(OSError):
            names = sorted(os.listdir(self._folder))
            return [
                n for n in names if n.endswith(suffix) and _STEM.fullmatch(n.removesuffix(suffix))
            ]
        return []


def _read(path: Path) -> str:
    size = path.stat().st_size
    if not path.is_file() or size > _MAX_INDEX:
        msg = f"it is no file of at most {_MAX_INDEX} bytes"
        raise ValueError(msg)
    return path.read_text(encoding="utf-8")


def _write_at_once(path: Path, text: str) -> None:
    """Either the whole text is there or nothing."""
    draft = path.with_suffix(".tmp")
    try:
        with draft.open("x", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)
        raise


def _is_abandoned(path: Path) -> bool:
    """Whether the owner of an unsealed slab is a process of this machine that is no more."""
    found = _STEM.fullmatch(path.stem)
    if found is None or found[1] != _HOST or path.with_suffix(".json").exists():
        return False
    if _is_alive(int(found[2])):
        return False
    try:
        descriptor = os.open(path, READ)
    except OSError:
        return False
    try:  # its owner may have sealed it in the meantime: look again when it cannot any more
        return lock(descriptor) and not path.with_suffix(".json").exists()
    finally:
        os.close(descriptor)


def _is_alive(process: int) -> bool:
    if process == os.getpid():
        return False  # own slabs are locked; this is an earlier process of the same number
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True
