"""Residual branches as things that can be left out of a backward pass."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.utils.hooks import RemovableHandle

from lightning_attnbal.apply._cut import Entrance, cut  # the one place that needs single branches
from lightning_attnbal.apply._detach import find_branches
from lightning_attnbal.core import Unit

_Event = tuple[bool, nn.Module]  # (whether it is entered or left, which module)


@dataclass(frozen=True, slots=True)
class Branch:
    """One residual branch, such as a block's attention.

    Args:
        block: the block it is in.
        entrance: where it leaves the skip path.
        parameters: those of what runs from there to the block's next branch and were trainable.
    """

    block: nn.Module
    entrance: Entrance
    parameters: tuple[nn.Parameter, ...]


def branches_of(
    model: nn.Module, units: Iterable[Unit], forward: Callable[[], object]
) -> list[Branch]:
    """The branches of all units that have any, forward order.

    A normalisation that follows the branch on the skip path (post-norm) is taken to be part of it.

    Args:
        model: holds the units.
        units: the blocks.
        forward: runs the model once on a real batch.
    """
    units = tuple(units)
    roots = {name: model.get_submodule(name) for unit in units for name in unit.modules}
    with _recorded(roots.values()) as events:
        found = find_branches(model, units, forward)
    made: list[Branch] = []
    for unit in units:
        blocks = found[unit.name]
        for block, entrances in () if isinstance(blocks, str) else blocks:
            made += _split(block, entrances, events[block])
    return made


@contextmanager
def _recorded(blocks: Iterable[nn.Module]) -> Iterator[dict[nn.Module, list[_Event]]]:
    """What each block enters and leaves in its first call."""
    events: dict[nn.Module, list[_Event]] = {block: [] for block in blocks}
    handles = [handle for block in events for handle in _recorders(block, events[block])]
    try:
        yield events
    finally:
        for handle in handles:
            handle.remove()


def _recorders(block: nn.Module, events: list[_Event]) -> Iterator[RemovableHandle]:
    def add(event: _Event) -> None:
        if (False, block) not in events:
            events.append(event)

    for module in block.modules():
        yield module.register_forward_pre_hook(lambda m, _: add((True, m)))
        yield module.register_forward_hook(lambda m, _, __: add((False, m)))


def _split(
    block: nn.Module, entrances: Sequence[Entrance], events: Sequence[_Event]
) -> Iterator[Branch]:
    """Deal the block's trainable parameters out to its branches, in the order of the calls."""
    by_module = {entrance.module: entrance for entrance in entrances}
    owned: dict[Entrance, list[nn.Parameter]] = {}
    current: Entrance | None = None
    seen: set[int] = set()
    for is_entered, module in events:
        current = by_module.get(module, current) if is_entered else current
        if current is None or module is block:
            continue
        # when a module is left, what it holds and did not call (as attention does) is dealt out too
        found = module.parameters(recurse=not is_entered)
        new = [p for p in found if id(p) not in seen and p.requires_grad]
        seen.update(map(id, new))
        owned.setdefault(current, []).extend(new)
    for entrance, parameters in owned.items():
        yield Branch(block, entrance, tuple(parameters))


class BranchDropper:
    """Leaves branches out of the backward pass: no gradient in them, none through them.

    Values are unchanged, and dropout in a dropped branch stays on.

    Args:
        branches: what can be dropped.
    """

    def __init__(self, branches: Sequence[Branch]) -> None:
        self._branches = branches
        self._handles: list[RemovableHandle] = []

    def drop(self, numbers: Collection[int]) -> None:
        """Drop exactly these branches from now on."""
        for handle in self._handles:
            handle.remove()
        by_block: dict[nn.Module, list[Entrance]] = {}
        for number, branch in enumerate(self._branches):
            if number in numbers:
                by_block.setdefault(branch.block, []).append(branch.entrance)
            for parameter in branch.parameters:
                parameter.requires_grad_(number not in numbers)
                if number in numbers:
                    parameter.grad = None  # a stale one would still move it
        self._handles = [h for block, found in by_block.items() for h in cut(block, found)]


def backward_saved(total: float, costs: Sequence[float]) -> list[float]:
    """FLOPs that dropping each branch saves, in [0, inf).

    Example:
        >>> backward_saved(10.0, [7.0, 10.5])
        [3.0, 0.0]
    """
    return [max(0.0, total - cost) for cost in costs]


def squared_distance(first: Sequence[Any], second: Sequence[Any]) -> float:
    """Sum of squared differences of two lists of gradients; a missing one counts as zero.

    Example:
        >>> import torch
        >>> squared_distance([torch.ones(2), None], [None, torch.full((1,), 3.0)])
        11.0
    """
    total = 0.0
    for a, b in zip(first, second, strict=True):
        if a is not None or b is not None:
            difference = b if a is None else a if b is None else a - b
            total += float((difference**2).sum())
    return total
