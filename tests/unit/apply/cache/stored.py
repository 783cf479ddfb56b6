"""What the tests of the store share: keys, rows, reading a row back, folders of earlier runs."""

import torch

from lightning_attnbal.apply.cache._store import ActivationStore

KIB = 2**10


def key(i):
    return i.to_bytes(16, "big")


def rows(num_rows, *shape, dtype=torch.float32, seed=0):
    """Keys and rows of one tensor each."""
    generator = torch.Generator().manual_seed(seed)
    tensors = torch.randn(num_rows, *shape, generator=generator).to(dtype)
    return [key(i) for i in range(num_rows)], [[tensor] for tensor in tensors]


def fetch(space, name, dtypes):
    """The row as new tensors of these dtypes, None if it cannot be delivered."""
    if space.missing([name]):
        return None
    shapes = space.shapes(name)
    out = [torch.zeros(s, dtype=d) for s, d in zip(shapes, dtypes, strict=True)]
    return None if space.read([name], [out]) else out


def found(space, keys, values):
    """How many rows the space delivers, each with the bits that were stored."""
    kept = [fetch(space, k, [t.dtype for t in row]) for k, row in zip(keys, values, strict=True)]
    for row, given in zip(kept, values, strict=True):
        if row is not None:
            assert all(torch.equal(a, b) for a, b in zip(row, given, strict=True))
    return sum(row is not None for row in kept)


KEYS, ROWS = rows(40, 64, 64, dtype=torch.float16)  # 8 KiB each


def on_disk(folder, **options):
    return ActivationStore(ram=0, disk="8MiB", folder=folder, **options)


def kept(folder, **options):
    """A folder in which an earlier run left its rows."""
    with on_disk(folder, keep=True, **options) as store:
        assert store.space("cut").put(KEYS, ROWS) == len(KEYS)
    return folder


def files(folder, suffix):
    return sorted(folder.rglob(f"*{suffix}"))


def spoil(path, at):
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)
        file.seek(at)
        file.write(bytes([byte[0] ^ 1]))
