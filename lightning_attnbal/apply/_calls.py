"""Inputs to try a block on: recorded from a real forward pass, or made up."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._pytree import tree_leaves, tree_map

from lightning_attnbal.core import UnsupportedModelError

_NUM_SAMPLES, _NUM_TOKENS, _PIXELS = 2, 6, 8


@dataclass(frozen=True, slots=True)
class Call:
    """The arguments of one call of a module, without autograd history."""

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any] = field(default_factory=dict)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Dropout off, statistics still; training flags and random state as before afterwards."""
    modes = {module: module.training for module in model.modules()}
    try:
        for module in modes:
            module.training = False
        with torch.random.fork_rng():
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def record_calls(
    model: nn.Module, modules: Sequence[str], forward: Callable[[], object]
) -> dict[str, Call]:
    """The first call of each module in one run of `forward`, in eval mode without gradients."""
    calls: dict[str, Call] = {}

    def recorder(name: str) -> Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], None]:
        def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            calls.setdefault(name, Call(*tree_map(_plain, (args, kwargs))))

        return hook

    handles = [
        model.get_submodule(name).register_forward_pre_hook(recorder(name), with_kwargs=True)
        for name in modules
    ]
    was_fused = torch.backends.mha.get_fastpath_enabled()
    try:
        torch.backends.mha.set_fastpath_enabled(False)  # it calls no submodules
        with evaluating(model), torch.no_grad():
            forward()
    finally:
        torch.backends.mha.set_fastpath_enabled(was_fused)
        for handle in handles:
            handle.remove()
    return calls


def _plain(leaf: Any) -> Any:
    """Tensors and plain values; objects with state, such as key-value caches, are left out."""
    if isinstance(leaf, Tensor):
        return leaf.detach().clone()
    return leaf if isinstance(leaf, bool | int | float | str) else None


def synthetic_call(block: nn.Module) -> Call:
    """A made-up call that puts every parameter of `block` to use.

    Tokens (B, N, D), an image (B, D, h, w), channels last (B, h, w, D), or rows (B, D).

    Raises:
        UnsupportedModelError: no such call was found; the message holds the last reason.

    Example:
        >>> [tuple(arg.shape) for arg in synthetic_call(nn.Conv2d(3, 8, 3)).args]
        [(2, 3, 8, 8)]
    """
    reason = "no layer tells its width"
    for call in _candidates(block):
        try:
            unused = _unused_parameters(block, call)
        except Exception as error:  # whatever a foreign forward raises, it means: not this input
            reason = f"{type(error).__name__}: {error}"
            continue
        if not unused:
            return call
        reason = f"it leaves {', '.join(unused)} unused"
    msg = (
        f"no made-up input fits its forward ({reason}); "
        "pass `forward=`, a function that runs the model on a real batch"
    )
    raise UnsupportedModelError(msg)


def _unused_parameters(block: nn.Module, call: Call) -> list[str]:
    """Parameters that no output depends on: of a part that did not run, such as cross attention."""
    parameters = {name: p.detach().requires_grad_() for name, p in block.named_parameters()}
    with evaluating(block), torch.enable_grad():
        outputs = tree_leaves(functional_call(block, parameters, call.args, dict(call.kwargs)))
    total = sum(t.sum() for t in outputs if isinstance(t, Tensor) and t.requires_grad)
    if not isinstance(total, Tensor):
        return list(parameters)
    found = torch.autograd.grad(total, tuple(parameters.values()), allow_unused=True)
    return [name for name, gradient in zip(parameters, found, strict=True) if gradient is None]


def _candidates(block: nn.Module) -> Iterator[Call]:
    like = next(block.parameters(), torch.empty(0))
    generator = torch.Generator().manual_seed(0)
    for width in _widths(block):
        for shape in (
            (_NUM_SAMPLES, _NUM_TOKENS, width),
            (_NUM_SAMPLES, width, _PIXELS, _PIXELS),
            (_NUM_SAMPLES, _PIXELS, _PIXELS, width),
            (_NUM_SAMPLES, width),
        ):
            main = torch.randn(shape, generator=generator).to(like)
            yield Call((main,), _side_inputs(block, main, with_encoder=True))
            yield Call((main,), _side_inputs(block, main, with_encoder=False))


def _widths(block: nn.Module) -> list[int]:
    """Input widths of the first layers, most likely first."""
    names = ("normalized_shape", "in_features", "embed_dim", "in_channels", "num_features")
    found = [getattr(m, name) for m in block.modules() for name in names if hasattr(m, name)]
    found += [parameter.shape[-1] for parameter in block.parameters() if parameter.dim() > 0]
    widths = [value[-1] if isinstance(value, tuple) else value for value in found]
    return list(dict.fromkeys(width for width in widths if isinstance(width, int)))[:4]


def _side_inputs(block: nn.Module, main: Tensor, *, with_encoder: bool) -> dict[str, Any]:
    """An encoder's output and rotary positions by their usual names; None where else required."""
    known: dict[str, Any] = {"memory": main.clone(), "position_embeddings": _rotary(block, main)}
    if with_encoder:
        known["encoder_hidden_states"] = main.clone()
    named = list(inspect.signature(block.forward).parameters.values())[1:]
    plain = [p for p in named if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    return {p.name: known.get(p.name) for p in plain if p.name in known or p.default is p.empty}


def _rotary(block: nn.Module, main: Tensor) -> tuple[Tensor, Tensor]:
    """Cosine and sine of rotary position embeddings, shape (1, N, head_dim)."""
    sizes = (getattr(module, "head_dim", None) for module in block.modules())
    num_tokens, size = main.shape[1], next((s for s in sizes if isinstance(s, int)), 2)
    angles = torch.linspace(0, 1, num_tokens * size).to(main).view(1, num_tokens, size)
    return angles.cos(), angles.sin()
