"""Which replays a placement asks for, and which of them are the same."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

import torch
from torch import nn

from lightning_attnbal.measure._placement import PlacedCall, Units
from lightning_attnbal.measure._records import Call, TensorSpec

_INDEX_NAMES = {"layer_idx", "layer_id", "layer_index", "training"}
_SIMPLE = (bool, int, float, str, type(None), torch.dtype)


def structure(module: nn.Module) -> Hashable:
    """What a module's cost depends on: types, modes, shapes, plain settings; not the weights.

    Example:
        >>> one, same, other = nn.Linear(2, 3), nn.Linear(2, 3), nn.Linear(2, 4)
        >>> structure(one) == structure(same), structure(one) == structure(other)
        (True, False)
    """
    parts = tuple(
        (name, type(child), child.training, _settings(child))
        for name, child in module.named_modules(remove_duplicate=False)
    )
    tensors = (*module.named_parameters(), *module.named_buffers())
    return parts, tuple((name, TensorSpec.of(tensor).layout) for name, tensor in tensors)


def _settings(module: nn.Module) -> Hashable:
    return tuple(
        (name, value)
        for name, value in sorted(vars(module).items())
        if name not in _INDEX_NAMES and not name.startswith("_") and _is_simple(value)
    )


def _is_simple(value: object) -> bool:
    return isinstance(value, _SIMPLE) or (
        isinstance(value, tuple) and all(isinstance(item, _SIMPLE) for item in value)
    )


def _leaf_key(leaf: object) -> Hashable:
    if isinstance(leaf, TensorSpec):
        return leaf.layout
    return leaf if isinstance(leaf, Hashable) else (type(leaf), id(leaf))


@dataclass(frozen=True, slots=True)
class Request:
    """A call with the gradients that its replay has to compute.

    Args:
        call: which call.
        module: the module it called; None for a function.
        parameters: names, inside the module, of the parameters that require a gradient.
        leaves: positions of the arguments that require a gradient.
        key: equal for requests that cost the same.
    """

    call: Call
    module: nn.Module | None
    parameters: frozenset[str]
    leaves: frozenset[int]
    key: Hashable


class Requests:
    """Turns what a placement asks for into replays of the model's modules."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._structures: dict[str, Hashable] = {}

    def __call__(self, placed: PlacedCall, owners: Units, data: frozenset[int]) -> Request:
        """The replay in which parameters of `owners` and the inputs `data` need gradients."""
        call = placed.call
        parameters = frozenset(n for n, owner in placed.owners.items() if owner in owners)
        leaves = data | {i.position for i in placed.inputs if i.owner in owners}
        module = None if call.module is None else self._model.get_submodule(call.module)
        target = call.function if call.module is None else self._structure(call.module)
        arguments = (tuple(map(_leaf_key, call.leaves)), str(call.structure), call.autocast)
        key = (target, arguments, parameters, leaves)
        return Request(call, module, parameters, leaves, key)

    def _structure(self, name: str) -> Hashable:
        if name not in self._structures:
            self._structures[name] = structure(self._model.get_submodule(name))
        return self._structures[name]
