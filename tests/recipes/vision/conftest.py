"""Small image files, written where a test wants them."""

import gzip
import struct

import pytest
import torch

NAMES = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")


def idx_bytes(tensor):
    """An IDX file of unsigned bytes, written independently of the reader."""
    header = struct.pack(f">HBB{tensor.ndim}I", 0, 8, tensor.ndim, *tensor.shape)
    return header + bytes(tensor.flatten().tolist())


@pytest.fixture
def fashion_parts():
    """Six training and three test images of 5 × 4 pixels with their labels."""
    images = torch.randint(256, (9, 5, 4), dtype=torch.uint8)
    labels = torch.tensor([0, 9, 1, 2, 3, 4, 5, 6, 7], dtype=torch.uint8)
    return images[:6], labels[:6], images[6:], labels[6:]


@pytest.fixture
def write_fashion(fashion_parts):
    """Writes the four files into a folder, packed or not."""

    def write(folder, *, packed=True):
        folder.mkdir(parents=True, exist_ok=True)
        for name, part in zip(NAMES, fashion_parts, strict=True):
            content = idx_bytes(part)
            path = folder / f"{name}-ubyte{'.gz' if packed else ''}"
            path.write_bytes(gzip.compress(content) if packed else content)
        return folder

    return write
