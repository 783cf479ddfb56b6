"""Attention as it is called: fused, written out, or inside `nn.MultiheadAttention`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from inspect import signature
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from typing_extensions import override

from lightning_attnbal.measure.attention._multi_head import heads_of, split_heads
from lightning_attnbal.measure.attention._rows import (
    Sample,
    entropy_of_heads,
    entropy_of_scores,
)

_PRODUCTS: tuple[Any, ...] = (
    torch.matmul,
    torch.bmm,
    Tensor.matmul,
    Tensor.__matmul__,
    Tensor.bmm,
)
_MULTI_HEAD = signature(functional.multi_head_attention_forward)


class Notes(ABC):
    """What is told of attention calls."""

    @abstractmethod
    def entropy(self, values: Tensor) -> None:
        """(H,) mean entropies."""

    @abstractmethod
    def output(self, heads: Tensor, tensor: Tensor, gradient: Callable[[Tensor], Tensor]) -> None:
        """What the heads put out.

        Args:
            heads: (B, H, N, D), for the first samples.
            tensor: what has a gradient.
            gradient: makes that of `tensor` the gradient of `heads`.
        """


class AttentionCalls(TorchFunctionMode):
    """While active, tells of every attention call; torch computes the results as ever.

    Args:
        sample: which samples and queries are looked at.
        notes: is told.
    """

    def __init__(self, sample: Sample, notes: Notes) -> None:
        super().__init__()
        self._sample, self._notes = sample, notes
        self._weights: Tensor | None = None  # of attention written out, on the way to the values
        self._handlers: dict[Any, Callable[..., None]] = {
            functional.scaled_dot_product_attention: self._fused,
            functional.multi_head_attention_forward: self._multi_head,
            functional.softmax: self._softmax,
            torch.softmax: self._softmax,
            Tensor.softmax: self._softmax,
        }

    def forget(self) -> None:
        """Weights that met no values were no attention."""
        self._weights = None

    @override
    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if self._weights is not None and args and args[0] is self._weights:
            self._follow(func, result)
        handler = self._handlers.get(func)
        if handler is not None:
            device = args[0].device if args else kwargs["query"].device
            with torch.no_grad(), torch.autocast(device.type, enabled=False):
                handler(result, *args, **kwargs)
        return result

    def _fused(self, result: Tensor, query: Tensor, key: Tensor, *args: Any, **kwargs: Any) -> None:
        if query.ndim != 4:
            return
        given = dict(zip(("value", "attn_mask", "dropout_p", "is_causal"), args, strict=False))
        given |= kwargs
        found = entropy_of_heads(
            query,
            key,
            given.get("attn_mask"),
            self._sample,
            is_causal=given.get("is_causal", False),
            scale=given.get("scale"),
        )
        self._notes.entropy(found)
        self._heads(result)

    def _softmax(
        self, result: Tensor, scores: Tensor, dim: int | None = None, *_: Any, **__: Any
    ) -> None:
        if scores.ndim == 4 and dim in {-1, 3}:
            self._notes.entropy(entropy_of_scores(scores, result, self._sample))
            self._weights = result

    def _follow(self, func: Callable[..., Any], result: Any) -> None:
        """Weights pass dropout and casts, then meet the values."""
        if func in _PRODUCTS:
            self._weights = None
            self._heads(result)
        elif isinstance(result, Tensor):
            self._weights = result

    def _heads(self, result: Tensor) -> None:
        few = self._sample.samples
        self._notes.output(result[:few], result, lambda gradient: gradient[:few])

    def _multi_head(self, result: Any, *args: Any, **kwargs: Any) -> None:
        """Computed again from the inputs, for a few samples: torch keeps its heads to itself."""
        given = _MULTI_HEAD.bind(*args, **kwargs).arguments
        few, number = self._sample.samples, given["num_heads"]
        heads = heads_of(given, few)
        if heads is None:
            return
        query, key, value, mask = heads.query, heads.key, heads.value, heads.mask
        weight = given["out_proj_weight"].detach().float()
        self._notes.entropy(entropy_of_heads(query, key, mask, self._sample))
        outputs = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        self._notes.output(
            outputs, result[0], lambda grad: split_heads(grad[:, :few].float() @ weight, number)
        )
