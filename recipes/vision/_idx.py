"""Files of the MNIST family: a small header, then unsigned bytes."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import torch
from torch import Tensor

_UNSIGNED_BYTES = 8  # the format's code of the only element type that images and labels have


def read_idx(path: Path) -> Tensor:
    """The tensor in an IDX file of unsigned bytes, unpacked on the fly if its name ends in `.gz`.

    Layout, big-endian: two zero bytes, the element type, the number of dimensions D, D sizes of
    four bytes each, then the elements in C order.

    Raises:
        ValueError: the file is damaged, of another kind, or does not hold what its header says.

    Source: LeCun et al., "The MNIST database of handwritten digits", 1998, section on the format.
    """
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        zeros, kind, num_dims = struct.unpack_from(">HBB", content)
        sizes = struct.unpack_from(f">{num_dims}I", content, offset=4)
    except (EOFError, OSError, zlib.error, struct.error) as error:
        msg = f"Expected {path} to be a whole IDX file, but reading it failed: {error}."
        raise ValueError(msg) from error
    start = 4 + 4 * num_dims
    if (zeros, kind) != (0, _UNSIGNED_BYTES) or len(content) - start != math.prod(sizes):
        msg = (
            f"Expected {path} to be an IDX file of unsigned bytes, but its header says type {kind} "
            f"and sizes {sizes}, with {len(content) - start} bytes after it."
        )
        raise ValueError(msg)
    return torch.frombuffer(bytearray(content[start:]), dtype=torch.uint8).reshape(sizes)
