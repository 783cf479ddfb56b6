"""Hooks that cut a block's residual branches off from its inputs."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map
from torch.utils.hooks import RemovableHandle

Slot = int | str
"""Where an argument stands in a call: its position, or its keyword."""

_Arguments = tuple[tuple[Any, ...], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Entrance:
    """A submodule call at which a residual branch leaves the skip path.

    Args:
        module: the submodule.
        slots: the arguments that carry the skip path's tensor.
    """

    module: nn.Module
    slots: frozenset[Slot]


def main_slots(block: nn.Module) -> frozenset[Slot]:
    """Where the main input of `block` may stand: first, or under its forward's first name.

    Example:
        >>> sorted(main_slots(nn.Linear(2, 2)), key=str)
        [0, 'input']
    """
    return frozenset((0, next(iter(inspect.signature(block.forward).parameters), 0)))


def cut(block: nn.Module, entrances: Iterable[Entrance]) -> list[RemovableHandle]:
    """Detach what enters the branches of `block`: same values, gradient along the skip path only.

    The skip path's tensor is detached at each entrance; every other input of the block (masks,
    position biases, an encoder's output) at the block's own door.

    Returns:
        Handles; removing them all undoes the cut.
    """
    door = _Door(block)
    handles = [
        block.register_forward_pre_hook(door.enter, with_kwargs=True, prepend=True),
        block.register_forward_hook(door.leave, always_call=True),
    ]
    return handles + [
        entrance.module.register_forward_pre_hook(_Entrance(entrance.slots), with_kwargs=True)
        for entrance in entrances
    ]


class _Copies:
    """Detached tensors, one for each original: self attention reads one tensor as q, k and v."""

    def __init__(self) -> None:
        self.pairs: list[tuple[Tensor, Tensor]] = []

    def detached(self, tree: Any) -> Any:
        return tree_map(self._copy, tree)

    def restored(self, tree: Any) -> Any:
        return tree_map(self._original, tree)

    def _copy(self, leaf: Any) -> Any:
        if not isinstance(leaf, Tensor) or not leaf.requires_grad:
            return leaf
        for original, copy in self.pairs:  # by identity, in a way that torch.compile can trace
            if original is leaf:
                return copy
        self.pairs.append((leaf, leaf.detach()))
        return self.pairs[-1][1]

    def _original(self, leaf: Any) -> Any:
        for original, copy in self.pairs:
            if copy is leaf:
                return original
        return leaf


class _Entrance:
    """Forward pre-hook that detaches the arguments in `slots`."""

    def __init__(self, slots: frozenset[Slot]) -> None:
        self._slots = slots

    def __call__(
        self, _: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> _Arguments:
        slots, copies = self._slots, _Copies()
        return (
            tuple(copies.detached(a) if i in slots else a for i, a in enumerate(args)),
            {k: copies.detached(a) if k in slots else a for k, a in kwargs.items()},
        )


class _Door:
    """Detaches a block's side inputs; hands on the originals of those the block returns unchanged.

    T5 passes one position bias through all blocks: a cut block must not cut it for those above.
    Inside, PyTorch's fused attention for inference is off: it rounds differently, and would be
    taken as soon as nothing in an attention layer needs a gradient.
    """

    def __init__(self, block: nn.Module) -> None:
        self._main = main_slots(block)
        self._attends = any(isinstance(m, nn.MultiheadAttention) for m in block.modules())
        self._copies = _Copies()
        self._was_fused = True

    def enter(self, _: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> _Arguments:
        if self._attends and not torch.compiler.is_compiling():
            self._was_fused = torch.backends.mha.get_fastpath_enabled()
            torch.backends.mha.set_fastpath_enabled(False)
        main, copies = self._main, _Copies()
        self._copies = copies
        return (
            tuple(a if i in main else copies.detached(a) for i, a in enumerate(args)),
            {k: a if k in main else copies.detached(a) for k, a in kwargs.items()},
        )

    def leave(self, _: nn.Module, __: tuple[Any, ...], output: Any) -> Any:
        if self._attends and not torch.compiler.is_compiling():
            torch.backends.mha.set_fastpath_enabled(self._was_fused)
        copies, self._copies = self._copies, _Copies()
        return copies.restored(output) if copies.pairs else output
