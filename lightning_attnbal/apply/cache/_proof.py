"""What shows that a prefix can be cached, or that it cannot."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping
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

_AS_ROUND = {torch.float16: "float16", torch.bfloat16: "bfloat16"}

_HUGE = 1e30  # masks are made of -inf or of the most negative number there is


def tolerance(encoding: str, tensors: Iterable[Tensor], autocast: torch.dtype | None) -> float:
    """Largest error that is only rounding.

    Args:
        encoding: how rows are stored.
        tensors: what was computed.
        autocast: what matrix products are computed in, if not in the type of their factors.

    Example:
        >>> tolerance("exact", [torch.ones(1)], None)
        1e-05
        >>> tolerance("exact", [torch.ones(1, dtype=torch.float16)], torch.bfloat16)
        0.03
    """
    kinds = {encoding, _AS_ROUND.get(autocast, encoding)} if autocast else {encoding}
    for tensor in tensors:
        kinds.add(_AS_ROUND.get(tensor.dtype, encoding))
        if tensor.is_cuda and tensor.dtype is torch.float32 and _may_round():
            kinds.add("float16")  # TF32 has as many digits
    return max(TOLERANCE[kind] for kind in kinds)


def _may_round() -> bool:
    """Whether float32 is rounded before it is multiplied on an accelerator."""
    is_exact = torch.get_float32_matmul_precision() == "highest"
    return torch.backends.cudnn.allow_tf32 or not is_exact


def random_state() -> tuple[Any, ...]:
    """Where PyTorch's, Python's and numpy's global random generators stand; can be compared."""
    kind, keys, *rest = np.random.get_state()
    cuda: tuple[bytes, ...] = ()
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        cuda = tuple(x.numpy().tobytes() for x in torch.cuda.get_rng_state_all())
    numbers = (kind, np.asarray(keys).tobytes(), *rest)
    return torch.get_rng_state().numpy().tobytes(), random.getstate(), numbers, cuda


def set_random_state(state: tuple[Any, ...]) -> None:
    """Put the generators back to where `random_state` found them."""
    default, python, (kind, keys, *rest), cuda = state
    torch.set_rng_state(torch.frombuffer(bytearray(default), dtype=torch.uint8))
    random.setstate(python)
    np.random.set_state((kind, np.frombuffer(keys, dtype=np.uint32), *rest))
    for i, one in enumerate(cuda):
        torch.cuda.set_rng_state(torch.frombuffer(bytearray(one), dtype=torch.uint8), i)


def set_seed(seed: int) -> None:
    """Start the generators of `random_state` from a seed in [0, 2^64)."""
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.manual_seed_all(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)


@contextmanager
def unharmed(module: nn.Module) -> Iterator[None]:
    """Random state, buffers and plain attributes of `module` afterwards as before.

    No gradient is recorded. What a forward changes elsewhere, in lists or objects, stays changed.
    """
    restore = snapshot(module)
    state = random_state()
    settings = [
        (vars(part), key, value)
        for part in module.modules()
        for key, value in vars(part).items()
        if isinstance(value, (bool, int, float, str, type(None)))
    ]
    try:
        with torch.no_grad():
            yield
    finally:
        set_random_state(state)
        torch.clear_autocast_cache()  # weights that were cast without a gradient
        restore()
        for attributes, key, value in settings:
            attributes[key] = value


def snapshot(module: nn.Module, most: float = float("inf")) -> Callable[[], None]:
    """Keep the buffers of `module` with at most so many numbers; the result puts them back."""
    kept = [
        (part, name, buffer, buffer.clone())
        for part in module.modules()
        for name, buffer in part.named_buffers(recurse=False)
        if buffer.numel() <= most
    ]

    def restore() -> None:
        with torch.no_grad():
            for part, name, buffer, before in kept:
                if getattr(part, name) is not buffer:
                    setattr(part, name, buffer)
                if not torch.equal(buffer, before):  # batch norm writes without telling
                    buffer.copy_(before)

    return restore


def leaves_of(results: Iterable[Tensor]) -> set[int]:
    """Identities of the tensors without history that get a gradient from these."""
    results = list(results)
    found = {id(result) for result in results if result.grad_fn is None}
    seen: set[Any] = set()
    waiting = [result.grad_fn for result in results]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        variable = getattr(node, "variable", None)
        if isinstance(variable, Tensor):
            found.add(id(variable))
        waiting.extend(before for before, _ in node.next_functions)
    return found


def reached(results: Iterable[Tensor], leaves: Mapping[Any, Tensor]) -> set[Any]:
    """Which leaves the results depend on, by their autograd graph.

    Example:
        >>> x, y = torch.ones(2, requires_grad=True), torch.ones(2, requires_grad=True)
        >>> reached([(2 * x).sum()], {"x": x, "y": y})
        {'x'}
    """
    found = leaves_of(results)
    return {name for name, leaf in leaves.items() if id(leaf) in found}


def largest_error(found: Tensor, stored: Tensor) -> float:
    """Largest |found - stored| over largest |found|, inf where one is not finite and the other is.

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
    a, b = found.detach().double(), stored.detach().double()
    usual = a.abs() < _HUGE
    if not torch.equal(usual, b.abs() < _HUGE):
        return float("inf")
    if not bool(usual.any()):
        return 0.0
    return float((a - b)[usual].abs().max() / a[usual].abs().max().clamp(min=1e-30))


def outputs_differ(served: Any, computed: Any, real: Tensor | None) -> float:
    """The largest error among the tensors of two results; padding does not count."""
    found, expected = tensors_in(served), tensors_in(computed)
    if len(found) != len(expected):
        return float("inf")
    pairs = zip(found, expected, strict=True)
    return max((largest_error(_real(b, real), _real(a, real)) for a, b in pairs), default=0.0)


def _real(tensor: Tensor, real: Tensor | None) -> Tensor:
    if real is None or tensor.shape[:2] != real.shape:
        return tensor
    return tensor[real.to(tensor.device)]


def has_nan(tree: Any) -> bool:
    """Whether some tensor of a tree holds NaN.

    Example:
        >>> has_nan([torch.tensor([1.0, torch.nan])]), has_nan({"x": torch.ones(2)})
        (True, False)
    """
    floats = (x for x in tensors_in(tree) if x.is_floating_point())
    return any(bool(x.detach().isnan().any()) for x in floats)


def clear_nan(tensors: Iterable[Tensor | None]) -> None:
    """Zero in the place of what is no number.

    Example:
        >>> x = torch.tensor([1.0, torch.nan])
        >>> clear_nan([x, None])
        >>> x
        tensor([1., 0.])
    """
    with torch.no_grad():
        for tensor in tensors:
            if tensor is not None:
                tensor.nan_to_num_(nan=0.0, posinf=0.0, neginf=0.0)


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
