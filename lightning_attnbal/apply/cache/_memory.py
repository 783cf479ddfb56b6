"""How much memory is free, and amounts of it as users write them."""

from __future__ import annotations

import os
from pathlib import Path

from lightning_attnbal.core import Dimension, Quantity, check_integer

_UNKNOWN = 4 * 2**30  # free where the system does not say
_CGROUP = Path("/sys/fs/cgroup")


def free_memory() -> int:
    """Bytes that this process could still take: of the machine, or of its container if less."""
    free = [_available(), _left_in_cgroup()]
    return min((bytes_ for bytes_ in free if bytes_ is not None), default=_UNKNOWN)


def default_ram() -> int:
    """A quarter of the free memory, shared with the other processes that torchrun started here."""
    processes = os.environ.get("LOCAL_WORLD_SIZE", "1")
    return free_memory() // 4 // max(1, int(processes) if processes.isdecimal() else 1)


def parse_bytes(name: str, value: str | int | Quantity) -> int:
    """A number of bytes from "2GiB", a `Quantity` or an integer.

    Raises:
        TypeError: `value` is none of these.
        ValueError: it is negative or not in bytes.

    Example:
        >>> parse_bytes("ram", "2GiB")
        2147483648
        >>> parse_bytes("ram", "40%")
        Traceback (most recent call last):
        ValueError: Expected `ram` to be in bytes such as '2GiB', but got 40%.
    """
    if not isinstance(value, str | Quantity):
        return check_integer(name, value, low=0)
    quantity = Quantity.parse(value, name)
    if quantity.dimension is not Dimension.BYTE:
        msg = f"Expected `{name}` to be in bytes such as '2GiB', but got {quantity}."
        raise ValueError(msg)
    return check_integer(name, int(quantity.amount), low=0)


def _available() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except (OSError, ValueError):
        return None
    found = [line.split()[1] for line in lines if line.startswith("MemAvailable:")]
    return 1024 * int(found[0]) if found else None


def _left_in_cgroup() -> int | None:
    try:
        limit, used = ((_CGROUP / f"memory.{name}").read_text() for name in ("max", "current"))
        return max(0, int(limit) - int(used))
    except (OSError, ValueError):  # no such file, or "max"
        return None
