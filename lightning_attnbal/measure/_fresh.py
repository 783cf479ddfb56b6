"""Which units were never trained: their weights still look as a framework initialises them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from lightning_attnbal.core import Unit, UnitKind

_CLOSE = 0.9  # of a bound that thousands of uniform numbers come close to
_MANY = 64
_SLACK = 4.0  # the mean square of n even numbers is off by 0.9 / √n of itself


@torch.no_grad()
def fresh_units(model: nn.Module, units: Sequence[Unit]) -> frozenset[str]:
    """Names of the units whose weights nobody has trained yet, as far as weights can tell.

    A module looks fresh if its norm gains and biases are each one constant (1 and 0, as every
    common initialisation leaves them), or if its weight fills exactly the interval ±1/√fan_in, as
    `nn.Linear`, `nn.Conv2d` and recurrent layers of torch draw it, or Xavier's
    ±√(6 / (fan_in + fan_out)), as `nn.Transformer` does. A unit is fresh if all of its
    modules that say anything do; a head, if any of its weights does, as a new classifier may follow
    an old norm. What says nothing (a bias-free matrix drawn from a normal) counts for neither; a
    unit in which nothing speaks counts as trained. Reads the weights once.

    Args:
        model: the model the units belong to.
        units: any order.

    Example:
        >>> from lightning_attnbal.core import UnitKind
        >>> model = nn.Sequential(nn.Linear(8, 8), nn.LayerNorm(8))
        >>> names = tuple(dict(model.named_parameters()))
        >>> unit = Unit("block", 0, UnitKind.BLOCK, ("",), names, 88)
        >>> sorted(fresh_units(model, [unit]))
        ['block']
        >>> with torch.no_grad():
        ...     model[1].weight += torch.randn(8)
        >>> sorted(fresh_units(model, [unit]))
        []
    """
    found = dict(model.named_parameters(remove_duplicate=False))
    return frozenset(unit.name for unit in units if _is_fresh(unit, found))


def _by_module(names: Iterable[str], found: dict[str, nn.Parameter]) -> dict[str, list[Tensor]]:
    """A unit's parameters, module by module."""
    modules: dict[str, list[Tensor]] = {}
    for name in names:
        modules.setdefault(name.rpartition(".")[0], []).append(found[name].detach())
    return modules


def _is_fresh(unit: Unit, found: dict[str, nn.Parameter]) -> bool:
    modules = list(_by_module(unit.parameters, found).values())
    with_weights = [tensors for tensors in modules if any(t.dim() > 1 for t in tensors)]
    if unit.kind is UnitKind.HEAD and with_weights:
        return any(map(_looks_fresh, with_weights))
    answers = [answer for tensors in modules if (answer := _looks_fresh(tensors)) is not None]
    return bool(answers) and all(answers)


def _looks_fresh(tensors: list[Tensor]) -> bool | None:
    """Whether a module's own parameters look untouched; None if they do not say."""
    matrices = [t for t in tensors if t.dim() > 1]
    vectors = [t for t in tensors if t.dim() == 1 and t.numel() > 1]
    if any(map(_is_uniform, matrices)):
        return True
    if vectors:
        return all(bool((v == v[0]).all()) for v in vectors)
    return None


def _is_uniform(weight: Tensor) -> bool:
    """Whether the weight fills an interval that frameworks draw from, evenly, and no more."""
    fan_in, fan_out = weight[0].numel(), weight[:, 0].numel()
    bounds = 1.0 / math.sqrt(fan_in), math.sqrt(6.0 / (fan_in + fan_out))
    largest, square = float(weight.abs().max()), float(weight.float().square().mean())
    slack = _SLACK / math.sqrt(weight.numel())
    return weight.numel() >= _MANY and any(
        _CLOSE * bound < largest <= bound * (1 + 1e-6) and abs(square / (bound**2 / 3) - 1) < slack
        for bound in bounds
    )
