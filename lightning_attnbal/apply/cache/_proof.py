"""What shows that a prefix can be cached, or that it cannot."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree  # torch has no public tree utilities yet

TOLERANCE = {
    "exact": 1e-5,
    "float32": 1e-5,
    "float16": 5e-3,
    "bfloat16": 3e-2,
    "int8": 3e-2,
}
"""Largest error of a stored row relative to its largest entry, by how rows are stored. Exact rows
differ by what another batch composition or padding does to the order of sums."""

_HUGE = 1e30  # masks are made of -inf or of the most negative number there is


def random_state() -> tuple[Any, ...]:
    """Where PyTorch's, Python's and numpy's global random generators stand; can be compared."""
    kind, keys, *rest = np.random.get_state()  # noqa: NPY002  # the generator that users draw from
    cuda = ()
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        cuda = tuple(x.numpy().tobytes() for x in torch.cuda.get_rng_state_all())
    numbers = (kind, np.asarray(keys).tobytes(), *rest)
    return torch.get_rng_state().numpy().tobytes(), random.getstate(), numbers, cuda


def set_random_state(state: tuple[Any, ...]) -> None:
    """Put the generators back to where `random_state` found them."""
    default, python, (kind, keys, *rest), cuda = state
    torch.set_rng_state(torch.frombuffer(bytearray(default), dtype=torch.uint8))
    random.setstate(python)
    np.random.set_state((kind, np.frombuffer(keys, dtype=np.uint32), *rest))  # noqa: NPY002
    for i, one in enumerate(cuda):
        torch.cuda.set_rng_state(torch.frombuffer(bytearray(one), dtype=torch.uint8), i)


@contextmanager
def unharmed(module: nn.Module) -> Iterator[None]:
    """Random state and buffers of `module` afterwards as before; no gradient is recorded."""
    buffers = {name: buffer.clone() for name, buffer in module.named_buffers()}
    state = random_state()
    try:
        with torch.no_grad():
            yield
    finally:
        set_random_state(state)
        with torch.no_grad():
            for name, buffer in module.named_buffers():
                if not torch.equal(buffer, buffers[name]):
                    buffer.copy_(buffers[name])


def reached(results: Iterable[Tensor], leaves: Mapping[Any, Tensor]) -> set[Any]:
    """Which leaves the results depend on, by their autograd graph.

    Example:
        >>> x, y = torch.ones(2, requires_grad=True), torch.ones(2, requires_grad=True)
        >>> reached([(2 * x).sum()], {"x": x, "y": y})
        {'x'}
    """
    names = {id(leaf): name for name, leaf in leaves.items()}
    found = {names[id(result)] for result in results if id(result) in names}
    seen: set[Any] = {None}
    waiting = [result.grad_fn for result in results]
    while waiting:
        node = waiting.pop()
        if node in seen:
            continue
        seen.add(node)
        variable = getattr(node, "variable", None)
        if id(variable) in names:
            found.add(names[id(variable)])
        waiting.extend(before for before, _ in node.next_functions)
    return found


def largest_error(found: Tensor, stored: Tensor) -> float:
    """max |found - stored| / max |found|, inf where one is not finite and the other is.

    Example:
        >>> largest_error(torch.tensor([1.0, 4.0]), torch.tensor([1.0, 3.0]))
        0.25
        >>> largest_error(torch.tensor([1.0]), torch.tensor([torch.nan]))
        inf
    """
    if found.shape != stored.shape:
        return float("inf")
    if not found.numel() or torch.equal(found, stored):
        return 0.0
    a, b = found.double(), stored.double()
    usual = a.abs() < _HUGE
    if not torch.equal(usual, b.abs() < _HUGE):
        return float("inf")
    if not bool(usual.any()):
        return 0.0
    return float((a - b)[usual].abs().max() / a[usual].abs().max().clamp(min=1e-30))


def outputs_differ(served: Any, computed: Any, real: Tensor | None) -> float:
    """The largest error among the tensors of two results; padding does not count."""
    pairs = zip(tensors_in(served), tensors_in(computed), strict=True)
    return max((largest_error(_real(b, real), _real(a, real)) for a, b in pairs), default=0.0)


def _real(tensor: Tensor, real: Tensor | None) -> Tensor:
    if real is None or tensor.shape[:2] != real.shape:
        return tensor
    return tensor[real.to(tensor.device)]


def tensors_in(tree: Any) -> list[Tensor]:
    """All tensors of a tree."""
    return [x for x in pytree.tree_leaves(tree) if isinstance(x, Tensor)]


def padding_matters(leaves: Iterable[Tensor], real: Tensor) -> bool:
    """Whether a gradient reaches a position that is only padding.

    A masked softmax, a mean over real tokens and an ignored label all give exactly zero.
    """
    return any(
        leaf.grad is not None and bool(leaf.grad[~real.to(leaf.grad.device)].any())
        for leaf in leaves
    )
