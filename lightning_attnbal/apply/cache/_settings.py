"""How a run stores what its frozen prefix computes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lightning_attnbal.apply.cache._codec import ENCODINGS, Encoding
from lightning_attnbal.apply.cache._memory import parse_bytes
from lightning_attnbal.apply.cache._store import ActivationStore
from lightning_attnbal.core import Quantity, check_choice, check_integer


@dataclass(frozen=True, kw_only=True)
class CacheSettings:
    """Room and precision of a prefix cache.

    Args:
        ram: bytes for rows in memory, such as "8GiB"; None: a quarter of what is free at the start.
        disk: bytes for rows that find no room there; 0: no files are written.
        folder: where files go; None: a temporary folder.
        dtype: "exact" keeps every bit; "bfloat16", "float16" and "int8" save room and round.
        keep: leave the rows in `folder` for the next run with the same weights and data.
        audit_every: calls of the model between two checks of stored rows against computed ones, in
            [1, inf); each costs a forward pass of the prefix.

    Raises:
        TypeError: a setting is of a wrong type.
        ValueError: a setting is out of range, or `keep` comes without `folder`.

    Example:
        >>> CacheSettings(ram="2GiB", dtype="float16").audit_every
        100
    """

    ram: str | int | Quantity | None = None
    disk: str | int | Quantity = 0
    folder: Path | None = None
    dtype: Encoding = "exact"
    keep: bool = False
    audit_every: int = 100

    def __post_init__(self) -> None:
        check_integer("audit_every", self.audit_every, low=1)
        check_choice("dtype", self.dtype, ENCODINGS)
        for name, amount in (("ram", self.ram), ("disk", self.disk)):
            if amount is not None:
                parse_bytes(name, amount)
        if self.keep and self.folder is None:
            msg = "Expected `folder` to be given, since `keep` is True, but got None."
            raise ValueError(msg)

    def open(self) -> ActivationStore:
        """A store of this kind."""
        return ActivationStore(
            ram=self.ram, disk=self.disk, folder=self.folder, dtype=self.dtype, keep=self.keep
        )
