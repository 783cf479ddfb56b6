"""The heads inside `nn.MultiheadAttention`. B batch, H heads, N queries, K keys, E width."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True, slots=True)
class Heads:
    """(B, H, N or K, E/H) each; `mask` is added to the scores and broadcasts to (B, H, N, K)."""

    query: Tensor
    key: Tensor
    value: Tensor
    mask: Tensor | None


def heads_of(given: Mapping[str, Any], samples: int) -> Heads | None:
    """Computed again in full precision, for the first samples.

    Args:
        given: arguments of `multi_head_attention_forward`.
        samples: so many.

    Returns:
        None where there is no batch dimension, or where keys beside those of the input are added.
    """
    extra = ("bias_k", "bias_v", "static_k", "static_v")
    if (
        given["query"].ndim != 3
        or given["add_zero_attn"]
        or any(given.get(x) is not None for x in extra)
    ):
        return None
    inputs = [given[name][:, :samples].float() for name in ("query", "key", "value")]
    number = given["num_heads"]
    projected = map(functional.linear, inputs, _weights(given), _biases(given))
    query, key, value = (split_heads(x, number) for x in projected)
    return Heads(query, key, value, _mask(given, samples, number))


def split_heads(tensor: Tensor, number: int) -> Tensor:
    """(N, B, E) to (B, H, N, E/H)."""
    return tensor.reshape(*tensor.shape[:2], number, -1).permute(1, 2, 0, 3)


def _weights(given: Mapping[str, Any]) -> tuple[Tensor, ...]:
    if given.get("use_separate_proj_weight"):
        return tuple(given[f"{x}_proj_weight"].float() for x in "qkv")
    return tuple(given["in_proj_weight"].float().chunk(3))


def _biases(given: Mapping[str, Any]) -> tuple[Tensor | None, ...]:
    bias = given["in_proj_bias"]
    return (None, None, None) if bias is None else tuple(bias.float().chunk(3))


def _mask(given: Mapping[str, Any], samples: int, number: int) -> Tensor | None:
    """Both masks as one bias; here True means hidden."""
    mask, padding = given.get("attn_mask"), given.get("key_padding_mask")
    if mask is not None:
        mask = _as_bias(mask)
        if mask.ndim == 3:
            mask = mask.reshape(-1, number, *mask.shape[1:])[:samples]
    if padding is not None:
        padding = _as_bias(padding)[:samples, None, None, :]
        mask = padding if mask is None else mask + padding
    return mask


def _as_bias(mask: Tensor) -> Tensor:
    if mask.dtype != torch.bool:
        return mask.float()
    return torch.zeros(mask.shape, device=mask.device).masked_fill(mask, -torch.inf)
