"""Find where the residual branches of a block begin, and prove that cutting there is sound."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import Node
from torch.utils._pytree import tree_leaves

from lightning_attnbal.apply._calls import Call, evaluating
from lightning_attnbal.apply._cut import Entrance, Slot, cut, main_slots
from lightning_attnbal.core import UnsupportedModelError

_SKIP_OPERATIONS = frozenset(
    (
        *("Add", "Sub", "Mul", "Div", "Pow", "Mean", "Rsqrt", "Clamp", "Relu"),
        *("NativeLayerNorm", "FusedRmsNorm", "NativeGroupNorm", "NativeBatchNorm"),
        *("CudnnBatchNorm", "MiopenBatchNorm"),
        *("View", "UnsafeView", "ReshapeAlias", "Alias", "Permute", "Transpose", "T"),
        *("Squeeze", "Unsqueeze", "Expand", "Clone", "ToCopy"),
    )
)
"""What may lie on a skip path: sums, normalisation, elementwise and shape operations. Anything else
(products of matrices, convolutions, attention, recurrence, what we do not know) makes a branch."""


def find_entrances(block: nn.Module, call: Call) -> tuple[Entrance, ...]:
    """Where the residual branches of `block` leave the skip path, proven on one call.

    The skip path is every way through the autograd graph, from the block's first output tensor to
    its first argument, along `_SKIP_OPERATIONS` alone. A submodule that reads a tensor on that
    path, but returns none, is an entrance. With all entrances detached, the proof requires that
    on this call
    1. the output equals that of the uncut block bit for bit, and
    2. the gradient of a random functional equals bit for bit the one that the *uncut* graph gives
       when its backward pass is kept to the skip path.

    Raises:
        UnsupportedModelError: no such branches, or the proof fails; the message is the reason.
    """
    with evaluating(block), _frozen(block), torch.enable_grad():
        trace = _trace(block, call)
        entrances = tuple(_entrances(trace))
        if not entrances:
            msg = "no residual branch starts at one of its submodules"
            raise UnsupportedModelError(msg)
        _prove(block, call, entrances, trace)
    return entrances


@contextmanager
def _frozen(block: nn.Module) -> Iterator[None]:
    trainable = [p for p in block.parameters() if p.requires_grad]
    try:
        for parameter in trainable:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)


@dataclass(frozen=True, slots=True)
class _Visit:
    """One call of a submodule: the graph nodes of each argument, and of all outputs."""

    name: str
    module: nn.Module
    inputs: dict[Slot, set[Node]]
    outputs: set[Node]


@dataclass(frozen=True, slots=True)
class _Trace:
    """A run of the block: input and its node, output, submodule calls, skip path."""

    leaf: Tensor
    start: Node
    output: Tensor
    visits: list[_Visit]
    skip: set[Node]


def _by_slot(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[Slot, Any]:
    given: dict[Slot, Any] = dict(enumerate(args))
    given.update(kwargs)
    return given


def _nodes(tree: Any) -> set[Node]:
    found = (leaf.grad_fn for leaf in tree_leaves(tree) if isinstance(leaf, Tensor))
    return {node for node in found if node is not None}


def _trace(block: nn.Module, call: Call) -> _Trace:
    visits: list[_Visit] = []
    handles = [
        handle
        for name, module in block.named_modules()
        if name
        for handle in _recorders(name, module, visits)
    ]
    try:
        leaf, start, output = _run(block, call)
    finally:
        for handle in handles:
            handle.remove()
    skip = set() if output.grad_fn is None else _skip_path(output.grad_fn, start)
    if not skip:
        msg = "no skip path leads from its first input to its output"
        raise UnsupportedModelError(msg)
    return _Trace(leaf, start, output, visits, skip)


def _recorders(name: str, module: nn.Module, visits: list[_Visit]) -> Iterator[Any]:
    """Hooks that note each call, with nodes as they are before any in-place operation."""
    entered: list[dict[Slot, set[Node]]] = []

    def enter(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        entered.append({slot: _nodes(arg) for slot, arg in _by_slot(args, kwargs).items()})

    def leave(_: nn.Module, __: tuple[Any, ...], output: Any) -> None:
        visits.append(_Visit(name, module, entered.pop(), _nodes(output)))

    yield module.register_forward_pre_hook(enter, with_kwargs=True)
    yield module.register_forward_hook(leave)


def _run(block: nn.Module, call: Call) -> tuple[Tensor, Node, Tensor]:
    """(leaf, the node of what the block reads, the block's first output tensor)."""
    slot, main = _main_argument(block, call)
    leaf = main.detach().clone().requires_grad_()
    read = leaf.clone()  # not a leaf, so that the block may work in place
    start = read.grad_fn
    assert start is not None
    args = [read if i == slot else arg for i, arg in enumerate(call.args)]
    kwargs = {key: read if key == slot else arg for key, arg in call.kwargs.items()}
    try:
        outputs = block(*args, **kwargs)
    except Exception as error:  # a foreign forward that needs what a lone block does not have
        msg = f"it does not run by itself ({type(error).__name__}: {error})"
        raise UnsupportedModelError(msg) from error
    tensors = [t for t in tree_leaves(outputs) if isinstance(t, Tensor) and t.is_floating_point()]
    if not tensors:
        msg = "its output holds no floating point tensor"
        raise UnsupportedModelError(msg)
    return leaf, start, tensors[0]


def _main_argument(block: nn.Module, call: Call) -> tuple[Slot, Tensor]:
    given = _by_slot(call.args, call.kwargs)
    for slot in main_slots(block) & given.keys():
        main = given[slot]
        if isinstance(main, Tensor) and main.is_floating_point():
            return slot, main
    msg = "its first input is not a floating point tensor"
    raise UnsupportedModelError(msg)


def _skip_path(end: Node, start: Node) -> set[Node]:
    """Nodes on any way from `end` to `start` along skip operations, both included; else empty."""
    below: dict[Node, set[Node]] = {}
    pending = [end]
    while pending:
        node = pending.pop()
        if node in below:
            continue
        follows = node is not start and _is_skip_operation(node)
        below[node] = {n for n, _ in node.next_functions if n is not None} if follows else set()
        pending += below[node]
    above: dict[Node, set[Node]] = {}
    for node, children in below.items():
        for child in children:
            above.setdefault(child, set()).add(node)
    skip: set[Node] = set()
    pending = [start] if start in below else []
    while pending:
        node = pending.pop()
        skip.add(node)
        pending += above.get(node, set()) - skip
    return skip


def _is_skip_operation(node: Node) -> bool:
    match = re.fullmatch(r"(\w+?)Backward\d*", node.name())
    return match is not None and match[1] in _SKIP_OPERATIONS


def _entrances(trace: _Trace) -> Iterator[Entrance]:
    """The outermost submodules that read the skip path without being on it."""
    slots: dict[nn.Module, set[Slot]] = {}
    names: list[str] = []
    for visit in sorted(trace.visits, key=lambda visit: visit.name.count(".")):
        reads = {slot for slot, nodes in visit.inputs.items() if nodes & trace.skip}
        is_inside = any(visit.name.startswith(f"{name}.") for name in names)
        if reads and not visit.outputs & trace.skip and not is_inside:
            names.append(visit.name)
            slots.setdefault(visit.module, set()).update(reads)
    return (Entrance(module, frozenset(found)) for module, found in slots.items())


def _prove(block: nn.Module, call: Call, entrances: tuple[Entrance, ...], trace: _Trace) -> None:
    handles = cut(block, entrances)
    try:
        leaf, _, output = _run(block, call)
    finally:
        for handle in handles:
            handle.remove()
    if output.grad_fn is None or not torch.equal(output, trace.output):
        msg = "cutting its branches changes its output"
        raise UnsupportedModelError(msg)
    generator = torch.Generator().manual_seed(0)
    direction = torch.randn(output.shape, generator=generator).to(output)
    (gradient,) = torch.autograd.grad(output, leaf, direction)
    if not torch.equal(gradient, _skip_gradient(trace, direction)):
        msg = "some branch does not start at a submodule, where it could be cut"
        raise UnsupportedModelError(msg)


def _skip_gradient(trace: _Trace, direction: Tensor) -> Tensor:
    """Gradient of <direction, output> through the uncut graph, without the edges off the path."""
    for node in trace.skip - {trace.start}:
        kept = [child in trace.skip for child, _ in node.next_functions]
        if not all(kept):
            node.register_hook(_keep_only(kept))
    (gradient,) = torch.autograd.grad(trace.output, trace.leaf, direction)
    return gradient


def _keep_only(kept: list[bool]) -> Any:
    def hook(inputs: tuple[Tensor | None, ...], _: Any) -> tuple[Tensor | None, ...]:
        return tuple(g if keep else None for g, keep in zip(inputs, kept, strict=True))

    return hook
