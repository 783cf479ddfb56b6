"""Start an encoder-decoder from scratch near a word table, by counts of the training pairs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_matrix, diags_array
from torch import Tensor
from transformers import MBartForConditionalGeneration

_PULL = 4.0
"""Weight of a token's translations beside its own random vector."""
_SLOWEST = 30.0
"""Positions per radian of the slowest wave; sentences here are short."""
_QUIET = 0.3
"""What is left of random weights whose outputs are added to the stream."""
_LOOK, _TAKE = 0.7, 3.0
"""Diagonal of the attention's queries and keys, and of its output."""


def dice_table(pairs: Iterable[tuple[Iterable[int], Iterable[int]]], num_tokens: int) -> csr_matrix:
    """How often tokens are in both halves of a pair: D_st = 2 n_st / (n_s + n_t + 1), in [0, 1).

    n_s pairs have token s in the source, n_t have t in the target, n_st both; fewer than two are
    chance and count 0. Shape (V, V), sparse.

    Args:
        pairs: token ids of sources and targets.
        num_tokens: size V of the vocabulary.

    Source: the Dice coefficient of Smadja et al., "Translating collocations for bilingual
    lexicons", 1996.

    Example:
        >>> dice_table([([0], [1]), ([0], [1])], num_tokens=2).toarray()
        array([[0. , 0.8],
               [0. , 0. ]])
    """
    halves = [(set(source), set(target)) for source, target in pairs]
    in_source = _incidence([source for source, _ in halves], num_tokens)
    in_target = _incidence([target for _, target in halves], num_tokens)
    both = (in_source.T @ in_target).tocoo()
    kept = both.data >= 2
    row, column, n_both = both.row[kept], both.col[kept], both.data[kept]
    n_source, n_target = (np.asarray(half.sum(axis=0)).ravel() for half in (in_source, in_target))
    values = 2 * n_both / (n_source[row] + n_target[column] + 1)
    return csr_matrix((values, (row, column)), shape=(num_tokens, num_tokens))


def _incidence(rows: Sequence[set[int]], num_tokens: int) -> csr_matrix:
    columns = [token for row in rows for token in row]
    starts = np.cumsum([0, *map(len, rows)])
    return csr_matrix((np.ones(len(columns)), columns, starts), shape=(len(rows), num_tokens))


def near_translations(embeddings: Tensor, dice: csr_matrix) -> Tensor:
    """Each token's vector moved towards those of its translations, twice; lengths are kept.

    E' = (I + 4 S)² E, where the rows of S are those of D² + D²ᵀ without its diagonal, divided by
    their sums.

    Args:
        embeddings: E, shape (V, d).
        dice: D, shape (V, V).

    Example:
        >>> dice = csr_matrix([[0, 0.9, 0], [0, 0, 0], [0, 0, 0]])
        >>> near = near_translations(torch.eye(3), dice)
        >>> bool(near[0] @ near[1] > 0.7), bool(near[0] @ near[2] == 0)
        (True, True)
    """
    shares = dice.power(2) + dice.T.power(2)
    shares = shares - diags_array(shares.diagonal())
    sums = np.asarray(shares.sum(axis=1)).ravel()
    pull = _PULL * diags_array(1 / np.maximum(sums, 1e-6)) @ shares
    moved = embeddings.numpy()
    for _ in range(2):
        moved = moved + pull @ moved
    directions = torch.from_numpy(moved).to(embeddings)
    near: Tensor = (
        directions * (embeddings.norm(dim=1) / directions.norm(dim=1).clamp(min=1e-12))[:, None]
    )
    return near


def waves(num_positions: int, width: int) -> Tensor:
    """Sines and cosines of positions, in pairs of columns, from fast to slow: (positions, width).

    Source: Vaswani et al., "Attention is all you need", 2017.
    """
    rates = torch.exp(-math.log(_SLOWEST) * torch.arange(0, width, 2) / width)
    angles = torch.arange(num_positions)[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)


@torch.no_grad()
def warm_start(
    model: MBartForConditionalGeneration, pairs: Iterable[tuple[Iterable[int], Iterable[int]]]
) -> None:
    """Let the model begin by writing, at each place, what translates the word at that place.

    Tokens start near their translations (`near_translations`), positions as `waves`; the decoder's
    attention to the source starts near the identity, so that it looks at the same place and the
    last word's translation, and passes on what is there; what the other layers add starts small.
    All of it is trained afterwards.

    Args:
        model: with new random weights; width a multiple of twice its heads.
        pairs: token ids of the training sources and targets.

    Source: attention near the identity as in Trockman & Kolter, "Mimetic initialization of
    self-attention layers", 2023.

    Raises:
        ValueError: the width does not go.
    """
    width, heads = model.config.d_model, model.config.decoder_attention_heads
    if width % (2 * heads):
        msg = (
            f"Expected `model.width` to be a multiple of {2 * heads}, twice the heads, for a warm "
            f"start, but got {width}. Change it, or give `model.warm_start=false`."
        )
        raise ValueError(msg)
    shared: Any = model.get_input_embeddings()
    table = shared.weight
    table.copy_(near_translations(table.detach(), dice_table(pairs, len(table))))
    encoder, decoder = model.model.encoder, model.model.decoder
    for half in (encoder, decoder):
        half.embed_positions.weight.copy_(waves(len(half.embed_positions.weight), width))
        for layer in half.layers:
            layer.self_attn.out_proj.weight.mul_(_QUIET)
            layer.fc2.weight.mul_(_QUIET)
    spread = torch.arange(width).view(-1, heads, 2).transpose(0, 1).flatten()
    same = torch.eye(width)[spread]  # each head sees waves from fast to slow
    for layer in decoder.layers:
        look = layer.encoder_attn
        for linear, start in (
            (look.q_proj, _LOOK * same),
            (look.k_proj, _LOOK * same),
            (look.v_proj, same),
            (look.out_proj, _TAKE * same.T),
        ):
            linear.weight.copy_(start + _QUIET * width**-0.5 * torch.randn(width, width))
