"""Padding is no part of a sample where that can be shown, and a part of it elsewhere."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.unit.apply.cache.prefixed import (
    CALLS,
    CLOSE,
    TOKENS,
    WIDTH,
    TokenBlock,
    TokenBody,
    TokenNet,
    calls_counted,
    padded,
    samples,
    shuffled,
)


@pytest.mark.parametrize("left", [False, True], ids=["right", "left"])
def test_rows_are_read_whatever_their_padding(make, left):
    twins = make(TokenNet)
    epochs = padded(12, left=left)
    twins.train(epochs[:10])  # until every padded length has come by
    with calls_counted(twins.model.body.blocks[0]) as calls:
        twins.train(epochs[10:])
    assert calls == [0]
    assert twins.worst <= CLOSE
    assert twins.reasons == ""
    assert twins.store.stats.rows == 12


class _Lengths(TokenNet):
    def forward(self, hidden, lengths):
        mask = (torch.arange(hidden.shape[1]) < lengths[:, None]).long()
        return self.head(self.pool(self.body(hidden, lengths), mask))


class _LengthBody(TokenBody):
    def forward(self, hidden, lengths):
        return super().forward(hidden, (torch.arange(hidden.shape[1]) < lengths[:, None]).long())


def test_lengths_in_the_place_of_a_mask(make):
    twins = make(lambda: _Lengths(_LengthBody()))
    epochs = [[(x, mask.sum(dim=1)) for x, mask in batches] for batches in padded(6)]
    twins.train(epochs)
    assert twins.worst <= CLOSE
    assert twins.store.stats.rows == 12
    assert twins.cache.counts.rows_read > 0


def test_key_padding_mask(make):
    class Layers(nn.Module):
        def __init__(self):
            super().__init__()
            options = {"dropout": 0.0, "batch_first": True}
            self.blocks = nn.ModuleList(
                nn.TransformerEncoderLayer(WIDTH, 2, 8, **options) for _ in range(4)
            )

        def forward(self, hidden, src_key_padding_mask):
            for block in self.blocks:
                hidden = block(hidden, src_key_padding_mask=src_key_padding_mask)
            return hidden

    class Masked(TokenNet):
        def forward(self, hidden, mask):
            return self.head(self.pool(self.body(hidden, mask == 0), mask))

    twins = make(lambda: Masked(Layers()))
    twins.train(padded(6))
    assert twins.worst <= CLOSE
    assert twins.store.stats.rows == 12
    assert twins.reasons == ""


class _Mean(TokenNet):
    def pool(self, hidden, mask):
        return hidden.mean(dim=1)


class _Max(TokenNet):
    def pool(self, hidden, mask):
        return hidden.amax(dim=1)


@pytest.mark.parametrize("net", [_Mean, _Max])
def test_pooling_over_padding_keeps_it(make, net):
    twins = make(net)
    twins.train(padded(8, size=6))
    assert twins.worst <= CLOSE
    assert twins.store.stats.rows > 12  # one per padded length


class _Blind(TokenBlock):
    """Attends to padding, too."""

    def forward(self, hidden, mask):
        return super().forward(hidden, torch.ones_like(mask))


class _Positions(TokenBody):
    """Adds to each token what depends on its place in the batch tensor."""

    def forward(self, hidden, attention_mask):
        place = torch.arange(hidden.shape[1], dtype=torch.float32)[None, :, None]
        return super().forward(hidden + torch.sin(place), attention_mask)


@pytest.mark.parametrize(
    ("body", "left"),
    [(lambda: TokenBody(_Blind), False), (_Positions, True)],
    ids=["no mask in the prefix", "absolute positions, left padding"],
)
def test_prefix_that_sees_padding_keeps_it(make, body, left):
    twins = make(lambda: TokenNet(body()))
    twins.train(padded(8, left=left))
    assert twins.worst <= CLOSE
    assert twins.store.stats.rows > 12 or "repadded" in twins.reasons or not twins.names


def test_attention_maps_cannot_do_without_padding(make):
    class Maps(TokenBody):
        def __init__(self):
            super().__init__(_MapBlock)

        def forward(self, hidden, attention_mask):
            maps = torch.zeros(())
            for block in self.blocks:
                hidden, own = block(hidden, attention_mask)
                maps = maps + own
            return hidden + maps @ hidden

    class _MapBlock(TokenBlock):
        def forward(self, hidden, mask):
            scores = torch.tanh(hidden @ hidden.transpose(1, 2)) * mask[:, None]
            return super().forward(hidden, mask), 0.1 * scores

    twins = make(lambda: TokenNet(Maps()))
    twins.train(padded(8))
    assert twins.worst <= CLOSE
    assert twins.store.stats.rows > 12 or twins.names == ()


def test_same_tokens_with_holes_elsewhere_are_other_samples(make):
    hidden = samples(1).expand(4, -1, -1).clone()
    mask = torch.ones(4, TOKENS).long()
    mask[0, 1] = mask[1, 2] = 0
    hidden[0, 1] = hidden[1, 2] = 0
    hidden[0, 2] = samples(1)[0, 1]
    twins = make(lambda: TokenNet(_Positions()))
    twins.train(shuffled((hidden, mask), 6, 2))
    assert twins.worst <= CLOSE


def test_nothing_is_counted_as_padding_without_a_mask(make):
    class Plain(TokenNet):
        def forward(self, hidden):
            mask = torch.ones(hidden.shape[:2]).long()
            return self.head(self.pool(self.body(hidden, mask), mask))

    class PlainBody(TokenBody):
        def forward(self, hidden, factor):
            return super().forward(hidden, torch.ones(hidden.shape[:2]).long())

    before = sum(CALLS.values())
    twins = make(lambda: Plain(PlainBody()))
    twins.train([[x for x, _ in batches] for batches in padded(5)])
    assert twins.worst <= CLOSE
    assert sum(CALLS.values()) > before
