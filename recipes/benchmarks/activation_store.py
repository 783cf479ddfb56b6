"""How fast the activation store is, and how large: `python -m recipes.benchmarks.activation_store`.

One thread; wall time, median of the repeats. Rows are 64 tokens × 384 features in float16 (48 KiB),
read in random batches of 32 into one batch tensor. Files lie in a temporary folder and are in the
page cache. Run it pinned to one core (`taskset -c 1`) of a machine that does nothing else; the last
part takes 5 GB of memory. Writes `results/activation_store.json` beside this file.
"""

from __future__ import annotations

import os

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")

import argparse
import gc
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from lightning_attnbal.apply.cache import ActivationStore, Space
from recipes.benchmarks._common import RESULTS, write_record

RESULT = RESULTS / "activation_store.json"
SHAPE = (64, 384)
ROW_BYTES = 2 * 64 * 384
BATCH = 32
NUM_ROWS = 4096  # in the speed runs: 201 MB
PAUSE = 0.05  # seconds, about a training step
ENCODINGS = {"exact": torch.float16, "float16": torch.float32, "int8": torch.float32}
LIMITS = ("64MiB", "1GiB")


@dataclass(frozen=True, kw_only=True)
class Speed:
    """Gigabytes (10^9) of float16 rows per second.

    Args:
        what: what was done.
        gigabytes_per_second: median.
        microseconds_per_row: median.
    """

    what: str
    gigabytes_per_second: float
    microseconds_per_row: float


@dataclass(frozen=True, kw_only=True)
class Size:
    """Memory of a store.

    Args:
        what: the limit.
        limit: bytes, None if it was never reached.
        rows: stored.
        payload: bytes of the rows themselves.
        charged: bytes by the store's own account, index included.
        resident: growth of the process's resident memory, bytes.
    """

    what: str
    limit: int | None
    rows: int
    payload: int
    charged: int
    resident: int


def key(i: int) -> bytes:
    """16 bytes, like a digest."""
    return i.to_bytes(16, "big")


def resident() -> int:
    """Resident memory of this process, bytes."""
    gc.collect()
    pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * os.sysconf("SC_PAGESIZE")


@cache
def given(dtype: torch.dtype) -> Tensor:
    """Some rows, made once, so that they do not count as growth."""
    return torch.randn(8 * BATCH, *SHAPE, generator=torch.Generator().manual_seed(0)).to(dtype)


def fill(space: Space, num_rows: int, dtype: torch.dtype = torch.float16) -> list[float]:
    """Store rows, batch by batch; seconds of each batch."""
    source, seconds = given(dtype), []
    for start in range(0, num_rows, BATCH):
        size = min(BATCH, num_rows - start)
        rows = [[source[(start + i) % len(source)]] for i in range(size)]
        keys = [key(start + i) for i in range(size)]
        begin = time.perf_counter()
        space.put(keys, rows)
        seconds.append(time.perf_counter() - begin)
    return seconds


def batches(seed: int) -> list[list[bytes]]:
    """All keys once, in random batches."""
    order = torch.randperm(NUM_ROWS, generator=torch.Generator().manual_seed(seed)).tolist()
    return [[key(i) for i in order[s : s + BATCH]] for s in range(0, NUM_ROWS, BATCH)]


def read(space: Space, keys: list[bytes], batch: Tensor) -> float:
    """Seconds of reading a batch."""
    out = [[row] for row in batch]
    begin = time.perf_counter()
    lost = space.read(keys, out)
    elapsed = time.perf_counter() - begin
    if lost:
        msg = f"{len(lost)} rows were not delivered"
        raise RuntimeError(msg)
    return elapsed


def epochs(space: Space, dtype: torch.dtype, repeats: int) -> list[float]:
    """Seconds of each batch over some epochs; the first one only warms up."""
    batch = torch.zeros(BATCH, *SHAPE, dtype=dtype)
    seconds = [read(space, keys, batch) for e in range(repeats + 1) for keys in batches(e)]
    return seconds[NUM_ROWS // BATCH :]


def speed(what: str, seconds: Sequence[float]) -> Speed:
    """From seconds per batch."""
    per_row = statistics.median(seconds) / BATCH
    return Speed(
        what=what,
        gigabytes_per_second=round(ROW_BYTES / per_row / 1e9, 2),
        microseconds_per_row=round(1e6 * per_row, 1),
    )


def ram_speeds(repeats: int) -> list[Speed]:
    """Writing to and reading from RAM."""
    speeds = []
    for encoding, dtype in ENCODINGS.items():
        with ActivationStore(ram="1GiB", dtype=encoding) as store:
            fill(store.space("warm up"), NUM_ROWS, dtype)  # pages the process never had are slow
            store.drop("warm up")
            space = store.space("cut")
            name = f"RAM, {encoding}"
            speeds.append(speed(f"{name}: write {dtype}", fill(space, NUM_ROWS, dtype)))
            speeds += [
                speed(f"{name}: read into {out}", epochs(space, out, repeats))
                for out in (torch.float16, torch.float32)
            ]
    return speeds


def disk_speeds(repeats: int) -> list[Speed]:
    """Writing to and reading from files, and waiting with and without prefetching."""
    with ActivationStore(ram="1GiB", disk=0) as store:
        fill(store.space("warm up"), NUM_ROWS)
    with ActivationStore(ram=0, disk="1GiB") as store:
        space = store.space("cut")
        return [
            speed("disk: write", fill(space, NUM_ROWS)),
            speed("disk: read into torch.float16", epochs(space, torch.float16, repeats)),
            speed("disk: read into torch.float32", epochs(space, torch.float32, repeats)),
            speed("disk: read after a pause of 50 ms", pauses(space, lambda _: None)),
            speed("disk: prefetch, pause of 50 ms, read", pauses(space, space.prefetch)),
        ]


def pauses(space: Space, before: Callable[[list[bytes]], None]) -> list[float]:
    """Seconds of reading each batch after a pause; `before` is called before it."""
    batch, seconds = torch.zeros(BATCH, *SHAPE), []
    for keys in batches(0)[:60]:
        before(keys)
        time.sleep(PAUSE)
        seconds.append(read(space, keys, batch))
    return seconds


def size(what: str, ram: str, num_rows: int, *, is_limited: bool) -> Size:
    """Fill a store and see how the process grew."""
    start = resident()
    with ActivationStore(ram=ram) as store:
        fill(store.space("cut"), num_rows)
        rows = store.stats.rows
        return Size(
            what=what,
            limit=store.capacity if is_limited else None,
            rows=rows,
            payload=rows * ROW_BYTES,
            charged=store.stats.ram_bytes,
            resident=resident() - start,
        )


def sizes(num_rows: int) -> list[Size]:
    """Stores that are filled to their limit, and a large one."""
    size("warm up", "16MiB", 1000, is_limited=True)
    limited = [size(f"limit {ram}", ram, 25_000, is_limited=True) for ram in LIMITS]
    large = size(f"{num_rows:,} rows of 64 × 384 float16", "16GiB", num_rows, is_limited=False)
    return [*limited, large]


def show(speeds: Sequence[Speed], found: Sequence[Size]) -> None:
    """Print the figures."""
    table = Table("what", "GB/s", "µs per row")
    for row in speeds:
        table.add_row(row.what, str(row.gigabytes_per_second), str(row.microseconds_per_row))
    Console().print(table)
    table = Table("store", "rows", "payload MB", "charged MB", "resident MB", "over the limit")
    for one in found:
        over = "" if one.limit is None else f"{one.resident / one.limit - 1:+.2%}"
        amounts = (f"{b / 1e6:,.1f}" for b in (one.payload, one.charged, one.resident))
        table.add_row(one.what, f"{one.rows:,}", *amounts, over)
    Console().print(table)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3, help="epochs that are read, at least 1")
    parser.add_argument("--rows", type=int, default=100_000, help="in the large store")
    parser.add_argument("--output", type=Path, default=RESULT)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    load = os.getloadavg()[0]
    found = sizes(options.rows)
    speeds = [*ram_speeds(options.repeats), *disk_speeds(options.repeats)]
    show(speeds, found)
    record = {
        "load_average_before": load,
        "row_bytes": ROW_BYTES,
        "batch": BATCH,
        "speeds": [asdict(row) for row in speeds],
        "sizes": [asdict(row) for row in found],
    }
    write_record(options.output, record)


if __name__ == "__main__":
    main()
