"""What the processor can do."""

from __future__ import annotations

import warnings

import torch


def has_bf16_units() -> bool:
    """Whether this processor multiplies bf16 matrices about as fast as float32 ones, or faster.

    On x86 that takes AVX-512: with AVX2 alone, PyTorch has only a plain loop. Other processors are
    taken at their word.
    """
    return torch.backends.cpu.get_cpu_capability() != "AVX2"


def warn_of_slow_precision(precision: str, device: torch.device) -> None:
    """Say so where bf16 makes steps slower, not faster.

    Args:
        precision: Lightning's name of the number format.
        device: that trains.
    """
    if precision.startswith("bf16") and device.type == "cpu" and not has_bf16_units():
        msg = (
            f"{precision} on this processor, which has no AVX-512, makes matrix products 3 to 40 "
            "times slower than float32; trainer.precision=32-true avoids that"
        )
        warnings.warn(msg, stacklevel=2)
