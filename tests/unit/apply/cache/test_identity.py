"""Keys depend on what a sample is, and on nothing else."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.utils.rnn import pack_sequence

from lightning_attnbal.apply.cache._identity import identify
from lightning_attnbal.apply.cache._reasons import NotCacheableError


def forward(ids, attention_mask=None, extra=None, **others): ...


def _keys(*args, trim=True, shared=(), setting=b"", **kwargs):
    return identify(forward, args, kwargs, trim=trim, shared=shared, setting=setting).keys


def _padded(rows, width, *, left=False, fill=0):
    ids = torch.full((len(rows), width), fill)
    mask = torch.zeros(len(rows), width, dtype=torch.long)
    for i, row in enumerate(rows):
        where = slice(width - len(row), width) if left else slice(len(row))
        ids[i, where] = torch.tensor(row)
        mask[i, where] = 1
    return ids, mask


ROWS = st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=5), min_size=1, max_size=6)


@given(ROWS, st.integers(0, 3), st.booleans(), st.randoms())
def test_padding_order_and_batch_do_not_matter(rows, more, left, rng):
    width = max(map(len, rows))
    keys = _keys(*_padded(rows, width))
    assert _keys(*_padded(rows, width + more, left=left, fill=9)) == keys
    order = rng.sample(range(len(rows)), len(rows))
    assert _keys(*_padded([rows[i] for i in order], width)) == tuple(keys[i] for i in order)
    for row, key in zip(rows, keys, strict=True):
        assert _keys(*_padded([row], len(row))) == (key,)


@given(ROWS)
def test_keys_are_equal_if_and_only_if_contents_are(rows):
    keys = _keys(*_padded(rows, max(map(len, rows))))
    for i, one in enumerate(rows):
        for j, other in enumerate(rows):
            assert (keys[i] == keys[j]) == (one == other)


@given(
    st.lists(st.floats(width=32, allow_nan=False), min_size=4, max_size=4),
    st.integers(0, 3),
    st.floats(width=32, allow_nan=False),
)
def test_any_change_of_a_number_is_another_sample(numbers, at, number):
    changed = [*numbers[:at], number, *numbers[at + 1 :]]
    before, after = torch.tensor([numbers]), torch.tensor([changed])
    same_bits = before.view(torch.int32).equal(after.view(torch.int32))
    assert (_keys(before) == _keys(after)) == same_bits


X = torch.arange(12).view(2, 6)
ONES = torch.ones(2, 6, dtype=torch.long)


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        ((X.int(),), {}),
        ((X.float(),), {}),
        ((X.view(2, 2, 3),), {}),
        ((X, ONES), {}),
        ((X,), {"extra": 1}),
        ((X,), {"extra": True}),
        ((X,), {"extra": 1.0}),
        ((X,), {"extra": "1"}),
        ((X,), {"extra": None, "flag": None}),
        ((X,), {"extra": torch.tensor(1)}),
        ((X,), {"extra": torch.tensor([1, 2, 3])}),
        ((X,), {"extra": [X]}),
        ((X,), {"extra": {"x": X}}),
        ((X,), {"extra": (X[:, :3], X[:, 3:])}),
        ((X,), {"setting": b"task b"}),
    ],
    ids=str,
)
def test_everything_that_is_given_counts(args, kwargs):
    assert not set(_keys(*args, **kwargs)) & set(_keys(X))


def test_plain_values_are_told_apart():
    values = [None, False, 0, 0.0, "0", b"0", -0.0, 0j, torch.float32, torch.device("cpu"), ""]
    keys = [_keys(X, extra=value) for value in values]
    assert len({key for pair in keys for key in pair}) == 2 * len(values)


def test_positional_and_named_arguments_are_the_same():
    assert _keys(X, ONES) == _keys(ids=X, attention_mask=ONES) == _keys(X, attention_mask=ONES)


def test_numpy_arrays_are_tensors():
    assert _keys(X.numpy()) == _keys(X)


def test_views_and_copies_are_the_same():
    whole = torch.randn(4, 3, 5)
    assert _keys(whole.transpose(1, 2)) == _keys(whole.transpose(1, 2).contiguous())
    assert _keys(whole[::2]) == _keys(whole[::2].clone())
    assert _keys(torch.complex(whole, whole).conj()) != _keys(torch.complex(whole, whole))


def test_autocast_counts():
    plain = _keys(X)
    with torch.autocast("cpu", torch.bfloat16):
        under = _keys(X)
    assert not set(plain) & set(under)


def test_holes_count_and_their_content_does_not():
    mask = torch.tensor([[1, 1, 0, 1, 0], [1, 0, 1, 1, 0], [1, 1, 1, 0, 0]])
    ids = torch.tensor([[4, 5, 0, 6, 0], [4, 0, 5, 6, 0], [4, 5, 6, 0, 0]])
    keys = _keys(ids, mask)
    assert len(set(keys)) == 3
    assert _keys(ids.masked_fill(mask == 0, 7), mask) == keys
    assert _keys(ids.flip(1), mask.flip(1))[2] != keys[0]


def test_padding_counts_without_trimming():
    short, long = _padded([[1, 2]], 2), _padded([[1, 2]], 3)
    assert _keys(*short, trim=False) != _keys(*long, trim=False)


@pytest.mark.parametrize(
    "padding",
    [
        {"mask": ONES.bool()},
        {"decoder_attention_mask": ONES},
        {"key_padding_mask": ~ONES.bool()},
        {"src_key_padding_mask": ~ONES.bool()},
        {"lengths": torch.tensor([6, 6])},
        {"seq_len": torch.tensor([6, 6])},
    ],
    ids=lambda padding: next(iter(padding)),
)
def test_arguments_that_tell_what_is_padding(padding):
    (name, full), *_ = padding.items()
    full_row = identify(forward, [X[:1]], {name: full[:1]}, trim=True)
    short = full[:1].clone()
    if short.dim() == 1:
        short[0] = 4
    else:
        short[0, 4:] = not full[0, 0]
    padded = identify(forward, [X[:1]], {name: short}, trim=True)
    assert padded.is_padded
    assert not full_row.is_padded
    other = X[:1].clone()
    other[0, 4:] = 99
    assert identify(forward, [other], {name: short}, trim=True).keys == padded.keys


@pytest.mark.parametrize(
    "kwargs",
    [
        {"attention_mask": ONES, "decoder_attention_mask": ONES},  # two that tell
        {"attention_mask": 2 * ONES},
        {"attention_mask": ONES.float()},
        {"attention_mask": 0 * ONES},  # a sample of padding only
        {"lengths": torch.tensor([7, 6])},
        {"mask": torch.ones(6, 6).bool()},
    ],
    ids=["two", "twos", "floats", "nothing left", "too long", "between positions"],
)
def test_arguments_that_do_not_tell_what_is_padding(kwargs):
    assert identify(forward, [X], kwargs, trim=True).real is None


def test_a_tensor_known_to_be_shared_counts_as_a_whole():
    table = torch.tensor([7, 8])
    by_row = _keys(X, extra=table)
    shared = _keys(X, extra=table, shared={"['extra']"})
    other = _keys(X, extra=torch.tensor([7, 9]), shared={"['extra']"})
    assert by_row[0] == _keys(X, extra=torch.tensor([7, 9]))[0]
    assert shared[0] != other[0]
    rows = identify(forward, [X[:1]], {"extra": table}, trim=True)
    assert rows.shared == {"['extra']"}
    assert rows.keys[0] == shared[0]


@pytest.mark.parametrize(
    ("argument", "reason"),
    [
        (pack_sequence([torch.ones(3)]), "PackedSequence, whose content cannot be told"),
        (torch.eye(2).to_sparse(), "not dense"),
        (torch.ones(2, requires_grad=True), "needs a gradient"),
        (object(), "a object, whose content"),
        (np.array([object()]), "a ndarray, whose content"),
    ],
    ids=["packed", "sparse", "gradient", "object", "objects"],
)
def test_what_cannot_be_identified(argument, reason):
    with pytest.raises(NotCacheableError, match=reason):
        _keys(X, extra=argument)


@pytest.mark.parametrize("args", [(), (3,), (torch.tensor(3),), (torch.ones(0, 3),)], ids=str)
def test_without_samples(args):
    with pytest.raises(NotCacheableError, match="no argument is a tensor of samples"):
        identify(forward, [None, *args], {}, trim=True)
