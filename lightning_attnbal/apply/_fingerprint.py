"""Did what should move move, and the rest not? Exact and cheap."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from lightning_attnbal.core import Plan, Unit

_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def checksum(tensor: Tensor) -> int:
    """Sum of all entries' bit patterns as integers, modulo 2^64: one flipped bit changes it.

    Example:
        >>> checksum(torch.tensor([1.0, 2.0])) == checksum(torch.tensor([1.0, 2.0 + 2**-22]))
        False
    """
    flat = tensor.detach().reshape(-1)
    real = torch.view_as_real(flat).reshape(-1) if flat.is_complex() else flat
    return int(real.view(_INTEGERS[real.element_size()]).sum(dtype=torch.int64))


def fingerprint(model: nn.Module) -> dict[str, int]:
    """Checksum of each parameter and buffer, by qualified name."""
    tensors = (*model.named_parameters(), *model.named_buffers())
    return {name: checksum(tensor) for name, tensor in tensors}


def violations(
    plan: Plan, units: Iterable[Unit], before: Mapping[str, int], after: Mapping[str, int]
) -> tuple[str, ...]:
    """What contradicts `plan` between two fingerprints, one sentence each.

    A unit that is not trained must not move by one bit, buffers of its modules (running statistics)
    included; of a trained unit at least one parameter must have moved (single ones may rightly have
    no gradient).
    """
    moved = {name for name, value in after.items() if before.get(name) != value}
    messages: list[str] = []
    for unit in units:
        level = plan[unit.name]
        if level.is_trained:
            if moved.isdisjoint(unit.parameters):
                messages.append(f"unit {unit.name!r} is {level}, but none of its parameters moved")
            continue
        inside = tuple(f"{name}." for name in unit.modules)
        own = {name for name in moved if name in unit.parameters}
        own |= {name for name in moved - _parameters_of(units) if name.startswith(inside)}
        messages += [f"unit {unit.name!r} is {level}, but {name!r} moved" for name in sorted(own)]
    return tuple(messages)


def _parameters_of(units: Iterable[Unit]) -> set[str]:
    return {name for unit in units for name in unit.parameters}
