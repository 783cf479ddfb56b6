"""Where a run runs."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from importlib import metadata

import torch


@dataclass(frozen=True, kw_only=True)
class Environment:
    """What a reader needs to judge timings, and to repeat them.

    Args:
        attnbal: version of this library ("not installed" when it runs from a source tree).
        python: version of the interpreter.
        torch: version of torch.
        lightning: version of Lightning.
        platform: operating system and machine.
        device: what the model trains on, such as "cpu" or "NVIDIA H100".
        num_threads: threads torch uses for one CPU operation.

    Example:
        >>> Environment.collect(device="cpu").device
        'cpu'
    """

    attnbal: str
    python: str
    torch: str
    lightning: str
    platform: str
    device: str
    num_threads: int

    @classmethod
    def collect(cls, device: str) -> Environment:
        """The environment of this process."""
        return cls(
            attnbal=_version("lightning-attnbal"),
            python=platform.python_version(),
            torch=_version("torch"),
            lightning=_version("lightning"),
            platform=platform.platform(),
            device=device,
            num_threads=torch.get_num_threads(),
        )


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
