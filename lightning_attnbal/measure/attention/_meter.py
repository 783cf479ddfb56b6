"""Looks at the attention heads of a model in one forward and backward pass that runs anyway."""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import ExitStack
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from typing_extensions import override

from lightning_attnbal.core import check_integer
from lightning_attnbal.measure.attention._calls import AttentionCalls, Notes
from lightning_attnbal.measure.attention._find import find_attention
from lightning_attnbal.measure.attention._rows import Sample
from lightning_attnbal.measure.attention._statistics import head_importance


@dataclass(frozen=True, slots=True)
class AttentionStatistics:
    """What was seen of each layer, in the order in which they ran.

    Args:
        entropy: module name → per head, mean normalised entropy of its weights, in [0, 1]; NaN
            where no query sees two keys.
        importance: module name → per head, `head_importance` over its ℓ2 norm in the layer, in
            [0, 1]; layers without a gradient are missing.

    Example:
        >>> AttentionStatistics(entropy={"layer.0": (0.8, 0.3)}).importance
        {}
    """

    entropy: dict[str, tuple[float, ...]] = field(default_factory=dict)
    importance: dict[str, tuple[float, ...]] = field(default_factory=dict)


class AttentionMeter(Notes):
    """Entropy and importance of every head, read off a forward and backward pass that runs anyway.

    Between `start` and `stop` the modules that may call attention carry hooks; inside them
    `scaled_dot_product_attention`, a softmax over keys followed by a product, and
    `nn.MultiheadAttention` are recognised by their call, with the queries, keys and masks they
    really get. Outputs and gradients are those of the pass without it, to the last bit. Query heads
    that share keys are told apart.

    Args:
        model: the model.
        samples: only the first so many of the batch are looked at, in [1, inf).
        rows: entropy is of so many queries per sample, evenly spaced, in [1, inf).

    Raises:
        TypeError: a number is not an integer.
        ValueError: a number is out of range.

    Source: entropy Zhai et al. 2023, importance Michel et al. 2019 (see `attention_entropy`,
    `head_importance`).

    Example:
        >>> model = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        >>> with AttentionMeter(model) as meter:
        ...     loss = model(torch.ones(1, 4, 8)).square().mean()
        ...     loss.backward()
        >>> seen = meter.compute()
        >>> [round(entropy, 3) for entropy in seen.entropy["self_attn"]]  # four equal tokens
        [1.0, 1.0]
        >>> len(seen.importance["self_attn"])
        2
    """

    def __init__(self, model: nn.Module, samples: int = 8, rows: int = 16) -> None:
        self._model = model
        self._sample = Sample(
            check_integer("samples", samples, low=1), check_integer("rows", rows, low=1)
        )
        self._handles: list[RemovableHandle] = []
        self._tensors: list[RemovableHandle] = []
        self._running: list[str] = []  # names of the modules at work, innermost last
        self._scope = ExitStack()
        self._calls = AttentionCalls(self._sample, self)
        self._reset()

    def _reset(self) -> None:
        self._entropy: dict[str, list[Tensor]] = {}
        self._importance: dict[str, list[Tensor]] = {}

    def start(self, leave_out: Collection[str] = ()) -> None:
        """Look at what runs from now on; forget what was seen before.

        Args:
            leave_out: names of modules that get no hooks, nor what is in them: hooks would make a
                cached prefix another one.
        """
        self.stop()
        self._reset()
        if any(is_compiled(module) for module in self._model.modules()):
            return
        for name, module in find_attention(self._model).items():
            if any(name == other or name.startswith(f"{other}.") for other in leave_out):
                continue
            enter, leave = self._around(name)
            self._handles += [
                module.register_forward_pre_hook(enter),
                module.register_forward_hook(leave, always_call=True),
            ]

    def _around(self, name: str) -> tuple[Callable[..., None], Callable[..., None]]:
        def enter(*_: Any) -> None:
            if not self._running:
                self._scope.enter_context(self._calls)
            self._running.append(name)

        def leave(*_: Any) -> None:
            self._running.pop()
            if not self._running:
                self._scope.close()
                self._calls.forget()

        return enter, leave

    @override
    def entropy(self, values: Tensor) -> None:
        self._entropy.setdefault(self._running[-1], []).append(values)

    @override
    def output(self, heads: Tensor, tensor: Tensor, gradient: Callable[[Tensor], Tensor]) -> None:
        if not tensor.requires_grad:
            return
        name, kept = self._running[-1], heads.detach().float().clone()

        def note(grad: Tensor) -> None:
            found = head_importance(kept, gradient(grad).float())
            self._importance.setdefault(name, []).append(found)

        self._tensors.append(tensor.register_hook(note))  # type: ignore[no-untyped-call]  # in torch

    def end_forward(self) -> None:
        """The forward pass is over: take the hooks off the modules, wait for gradients."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def stop(self) -> None:
        """Leave no trace on the model; safe to call twice."""
        self.end_forward()
        for handle in self._tensors:
            handle.remove()
        self._tensors.clear()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def compute(self) -> AttentionStatistics:
        """What was seen since `start`; a layer that ran several times gets the mean."""
        entropy = {name: torch.stack(seen).mean(0) for name, seen in self._entropy.items()}
        importance = {
            name: nn.functional.normalize(torch.stack(self._importance[name]).mean(0), dim=0)
            for name in entropy
            if name in self._importance
        }
        return AttentionStatistics(
            entropy={name: tuple(values.tolist()) for name, values in entropy.items()},
            importance={
                name: tuple(values.tolist())
                for name, values in importance.items()
                if values.isfinite().all()
            },
        )


def measure_attention(
    model: nn.Module, loss: Callable[[], Tensor], samples: int = 8, rows: int = 16
) -> AttentionStatistics:
    """What the heads of `model` do while `loss` is computed and differentiated once.

    Gradients that parameters hold are left alone.

    Args:
        model: the model.
        loss: runs the model and returns a scalar.
        samples: see `AttentionMeter`.
        rows: see `AttentionMeter`.

    Raises:
        TypeError: a number is not an integer.
        ValueError: a number is out of range.

    Example:
        >>> model = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        >>> seen = measure_attention(model, lambda: model(torch.rand(2, 4, 8)).square().mean())
        >>> list(seen.entropy), list(seen.importance)
        (['self_attn'], ['self_attn'])
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    with AttentionMeter(model, samples, rows) as meter:
        value = loss()
        if parameters:
            torch.autograd.grad(value, parameters, allow_unused=True)
    return meter.compute()


def is_compiled(module: nn.Module) -> bool:
    """Whether torch.compile made a graph of it, which a look inside would break up."""
    return (
        type(module).__name__ == "OptimizedModule"
        or getattr(module, "_compiled_call_impl", None) is not None
    )
