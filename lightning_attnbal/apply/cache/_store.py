"""Rows of activations, in RAM and beyond it on disk."""

from __future__ import annotations

import contextlib
import os
import tempfile
import weakref
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from lightning_attnbal.apply.cache._codec import ENCODINGS, Encoding
from lightning_attnbal.apply.cache._memory import default_ram, parse_bytes
from lightning_attnbal.apply.cache._rows import RowTable
from lightning_attnbal.apply.cache._space import Space
from lightning_attnbal.apply.cache._tiers import Tiers
from lightning_attnbal.core import Quantity, check_choice


@dataclass(frozen=True, kw_only=True, slots=True)
class StoreStats:
    """Figures of a store.

    Args:
        rows: stored now, in all spaces.
        ram_bytes: of rows in RAM and of the index of all rows (an upper bound).
        disk_bytes: of rows in own files.
        bytes_read: as stored; since the store was made, like the rest.
        seconds_read: wall time in `read`.
        bytes_prefetched: of rows that were fetched from disk ahead of `read`.
        bytes_written: as stored.
        seconds_written: wall time in `put`.
        rows_refused: for want of room.
        error: largest |decoded - given| of a tensor, as a share of its largest entry, measured on
            the first 64 rows of a space and each 16th after; 0 if exact.
        problems: what went wrong, each kind once.
    """

    rows: int
    ram_bytes: int
    disk_bytes: int
    bytes_read: int
    seconds_read: float
    bytes_prefetched: int
    bytes_written: int
    seconds_written: float
    rows_refused: int
    error: float
    problems: tuple[str, ...]


class ActivationStore:
    """Keeps rows of tensors under byte keys, in spaces; close it, or use it as a context manager.

    Rows go to RAM, then to disk. When both are full, whole spaces that are not preferred are given
    up, least recently used first; single rows never are: each row of an epoch is needed once per
    epoch, so with one row too few the least recently used one would always be the one needed next.
    What finds no room is refused, and computed each time. Nothing that happens to files raises an
    error: rows that cannot be written or read are missing, and `stats.problems` says why.

    Not for use in a forked process. After `close` nothing is found and nothing stored.

    Args:
        ram: bytes in [0, inf) for rows, their index (about 200 bytes each) and, with files, a
            staging area of an eighth; None: a quarter of what is free now. With 0 rows are on disk
            only, and the index may take what it needs.
        disk: bytes in [0, inf) for rows that find no room in RAM; needs Linux, macOS or BSD.
        folder: where files go, which may be shared by processes: each writes its own files and
            finds what others, and earlier runs that kept theirs, have sealed. None: a temporary
            folder where `tempfile` puts them, always deleted. Share a folder only with those you
            trust: rows are checked against damage, not against forgery.
        dtype: `exact` stores every bit. Otherwise floating tensors that are wider are narrowed to
            this dtype (`int8`: with a float32 scale per vector of the last axis); a tensor with a
            value that is not finite there is stored exactly, with its whole row.
        keep: leave own files in `folder` at the end, and put rows from RAM there too. Nothing
            limits what several runs leave there: delete the folder to be rid of it.

    Raises:
        TypeError: an argument is of a wrong type.
        ValueError: an argument is out of range, or `keep` comes without `folder`.

    Example:
        >>> import torch
        >>> with ActivationStore(ram="1MiB", dtype="float16") as store:
        ...     space = store.space("encoder.2")
        ...     space.put([b"a"], [[torch.linspace(0, 1, 6).view(2, 3)]])
        ...     store.stats.rows, space.missing([b"a", b"b"]), space.shapes(b"a")
        1
        (1, [1], ((2, 3),))
    """

    def __init__(
        self,
        *,
        ram: str | int | Quantity | None = None,
        disk: str | int | Quantity = 0,
        folder: Path | None = None,
        dtype: Encoding = "exact",
        keep: bool = False,
    ) -> None:
        check_choice("dtype", dtype, ENCODINGS)
        if keep and folder is None:
            msg = "Expected `folder` to be given, since `keep` is True, but got None."
            raise ValueError(msg)
        limits = (
            default_ram() if ram is None else parse_bytes("ram", ram),
            parse_bytes("disk", disk),
        )
        self.dtype: Encoding = dtype
        root, problem = _make_root(folder, limits[1])
        self._tiers = Tiers(
            ram=limits[0], disk=limits[1], encoding=dtype, root=root, is_private=folder is None
        )
        if problem is not None:
            self._tiers.no_disk(problem)
        self._spaces: dict[str, Space] = {}
        self._finalizer = weakref.finalize(
            self, _close, self._tiers, os.getpid(), keep=keep, temporary=None if folder else root
        )

    @property
    def capacity(self) -> int:
        """Bytes of rows and their index that fit: RAM without the staging area, and disk."""
        return self._tiers.capacity

    @property
    def stats(self) -> StoreStats:
        """The figures now."""
        with self._tiers.lock:
            use, figures = self._tiers.use, self._tiers.figures
            return StoreStats(
                rows=use.rows,
                ram_bytes=use.ram + use.index,
                disk_bytes=use.disk,
                bytes_read=figures.bytes_read,
                seconds_read=figures.seconds_read,
                bytes_prefetched=self._tiers.prefetcher.num_bytes,
                bytes_written=figures.bytes_written,
                seconds_written=figures.seconds_written,
                rows_refused=figures.rows_refused,
                error=figures.error,
                problems=tuple(figures.problems.values()),
            )

    def space(self, name: str) -> Space:
        """The space of this name, the same object each time; rows found in `folder` are in it.

        Args:
            name: any text; one cut of one version of the prefix.

        Raises:
            TypeError: `name` is not text.
        """
        _check_text(name)
        with self._tiers.lock:
            if name not in self._spaces:
                rows = RowTable(name, self._tiers)
                self._tiers.members.append(rows)
                self._spaces[name] = Space(rows, self._tiers)
                rows.refresh()
            return self._spaces[name]

    def prefer(self, names: Iterable[str]) -> None:
        """These spaces, opened or not, are never given up; all others may be, whole.

        Raises:
            TypeError: `names` is a single text.
        """
        if isinstance(names, str):
            msg = f"Expected `names` to be several names, but got {names!r}."
            raise TypeError(msg)
        with self._tiers.lock:
            self._tiers.preferred = frozenset(names)

    def drop(self, name: str) -> None:
        """Forget the rows of a space, free its memory and delete its own files."""
        with self._tiers.lock:
            for member in self._tiers.members:
                if member.name == name:
                    member.clear()

    def close(self) -> None:
        """Forget everything and delete own files, or seal them if they are kept; idempotent."""
        self._finalizer()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _make_root(folder: Path | None, disk: int) -> tuple[Path | None, OSError | None]:
    """The folder for files, None for no files; and why nothing can be written there."""
    if folder is None and not disk:
        return None, None
    if not hasattr(os, "preadv"):
        return None, OSError("this system has no `preadv`")
    try:
        if folder is None:
            return Path(tempfile.mkdtemp(prefix="attnbal-")), None
        if disk:
            folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        return folder and folder.absolute(), error
    return folder.absolute(), None


def _close(tiers: Tiers, process: int, keep: bool, temporary: Path | None) -> None:
    if os.getpid() != process:
        return  # a fork: files and thread are its parent's
    tiers.prefetcher.close()
    with tiers.lock:
        for member in tiers.members:
            member.close(keep=keep)
        tiers.is_closed = True
        tiers.files.close()
    if temporary is not None:
        with contextlib.suppress(OSError):
            temporary.rmdir()


def _check_text(name: object) -> None:
    if not isinstance(name, str):
        msg = f"Expected `name` to be text, but got {name!r} of type {type(name).__name__}."
        raise TypeError(msg)
