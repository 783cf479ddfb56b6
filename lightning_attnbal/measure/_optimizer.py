"""What an optimizer keeps per parameter, found by trying its class on a copy."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


def like(optimizer: Optimizer, parameters: Iterable[Tensor]) -> Optimizer:
    """A new optimizer of the same class and settings on other parameters.

    The settings are those of the first parameter group.

    Example:
        >>> old = torch.optim.SGD([torch.ones(1, requires_grad=True)], lr=0.5, momentum=0.9)
        >>> new = like(old, [torch.ones(2, requires_grad=True)])
        >>> new.defaults["momentum"]
        0.9
    """
    known = inspect.signature(type(optimizer)).parameters
    group: dict[str, Any] = optimizer.param_groups[0]
    settings = {name: value for name, value in group.items() if name in known and name != "params"}
    return type(optimizer)(list(parameters), **settings)


def state_bytes(optimizer: Optimizer, parameters: Iterable[Tensor]) -> int:
    """Bytes of optimizer state: what is there, else what the first step will create.

    Example:
        >>> weight = torch.ones(10, requires_grad=True)
        >>> state_bytes(torch.optim.AdamW([weight]), [weight])  # two moments of 40 bytes
        80
    """
    parameters = list(parameters)
    present = {id(p) for p in parameters if optimizer.state.get(p)}
    kept = sum(_bytes(optimizer.state[p], p) for p in parameters if id(p) in present)
    coming = [p for p in parameters if id(p) not in present]
    if not coming:
        return kept
    probe = torch.ones(2, 3, requires_grad=True)
    trial = like(optimizer, [probe])
    probe.grad = torch.ones_like(probe)
    trial.step()
    share = _bytes(trial.state[probe], probe) / (probe.numel() * probe.element_size())
    return kept + round(share * sum(p.numel() * p.element_size() for p in coming))


def _bytes(state: dict[str, Any], parameter: Tensor) -> int:
    """Bytes of the tensors as large as the parameter; step counters are left out."""
    tensors = [value for value in state.values() if isinstance(value, Tensor)]
    return sum(t.numel() * t.element_size() for t in tensors if t.numel() == parameter.numel() > 1)
