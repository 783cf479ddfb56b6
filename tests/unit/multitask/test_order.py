from collections import Counter
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_attnbal.multitask import apportion, deal, interleave
from lightning_attnbal.multitask._order import introduced

NAMES = st.sampled_from("abcdefgh")
SHARES = st.dictionaries(
    NAMES, st.floats(0, 1e6) | st.integers(0, 10), min_size=1, max_size=8
).filter(lambda shares: any(shares.values()))
COUNTS = st.dictionaries(NAMES, st.integers(0, 60) | st.sampled_from([0, 1, 400]), max_size=8)


@pytest.mark.parametrize(
    ("shares", "num", "expected"),
    [
        pytest.param({"a": 0.1, "b": 0.2, "c": 0.7}, 10, {"a": 1, "b": 2, "c": 7}, id="exact"),
        pytest.param({"a": 1, "b": 1, "c": 1}, 4, {"a": 2, "b": 1, "c": 1}, id="first-wins-ties"),
        pytest.param({"a": 0, "b": 1e-300}, 3, {"a": 0, "b": 3}, id="share-0"),
        pytest.param({"a": 30, "b": 10}, 2, {"a": 2, "b": 0}, id="any-scale"),
        pytest.param({"a": 1, "b": 2}, 0, {"a": 0, "b": 0}, id="nothing-to-give"),
    ],
)
def test_apportion(shares, num, expected):
    assert apportion(shares, num) == expected


@settings(deadline=None)
@given(SHARES, st.integers(0, 500))
def test_apportion_gives_everything_and_each_within_one_of_its_quota(shares, num):
    counts = apportion(shares, num)
    total = sum(map(Fraction, shares.values()))
    assert sum(counts.values()) == num
    assert all(abs(counts[t] - num * Fraction(s) / total) < 1 for t, s in shares.items())
    assert all(counts[task] == 0 for task, share in shares.items() if share == 0)


@settings(deadline=None)
@given(COUNTS.filter(lambda counts: any(counts.values())))
def test_apportion_by_counts_returns_them(counts):
    assert apportion(counts, sum(counts.values())) == counts


@settings(deadline=None)
@given(COUNTS)
def test_interleave_keeps_every_prefix_within_tijdemans_bound(counts):
    order = interleave(counts)
    assert Counter(order) == Counter({task: count for task, count in counts.items() if count})
    active = sum(count > 0 for count in counts.values())
    bound = 1 - Fraction(1, 2 * active - 2) if active > 1 else 0
    served = Counter()
    for position, task in enumerate(order, start=1):
        served[task] += 1
        for other, count in counts.items():
            ideal = Fraction(position * count, len(order))
            assert abs(served[other] - ideal) <= bound


def test_interleave_alternates_equal_tasks():
    assert "".join(interleave({"a": 3, "b": 3})) == "ababab"


@pytest.mark.parametrize(
    ("shares", "num", "error", "message"),
    [
        ({"a": -0.5, "b": 1}, 3, ValueError, r"Expected `shares\['a'\]` to be in \[0, inf\)"),
        ({"a": float("nan")}, 3, ValueError, r"`shares\['a'\]` .* but got nan"),
        ({"a": "half"}, 3, TypeError, r"Expected `shares\['a'\]` to be a number"),
        ({"a": 0, "b": 0.0}, 3, ValueError, r"`shares` to have a sum in \(0, inf\)"),
        ({}, 3, ValueError, r"`shares` to have a sum in \(0, inf\)"),
        ({"a": 1}, -1, ValueError, r"Expected `num` to be in \[0, inf\), but got -1"),
    ],
    ids=["negative", "nan", "text", "all-0", "none", "num"],
)
def test_apportion_refuses(shares, num, error, message):
    with pytest.raises(error, match=message):
        apportion(shares, num)


@given(SHARES, st.integers(0, 12))
@settings(max_examples=200, deadline=None)
def test_apportion_leaves_no_task_out_where_there_are_enough(shares, num):
    counts = apportion(shares, num, leaves_none_out=True)
    wanted = {task for task, share in shares.items() if share}
    assert sum(counts.values()) == num
    if num >= len(wanted):
        assert {task for task, count in counts.items() if count} == wanted
    plain = apportion(shares, num)
    if all(plain[task] for task in wanted):
        assert counts == plain


def test_interleave_refuses_a_negative_count():
    with pytest.raises(ValueError, match=r"Expected `counts\['b'\]` to be in \[0, inf\)"):
        interleave({"a": 1, "b": -1})


@given(st.lists(st.integers(0, 30), min_size=1, max_size=4), st.integers(1, 5))
@settings(max_examples=200, deadline=None)
def test_dealing_keeps_the_turns_and_the_pace_of_each_rank(counts, num):
    order = interleave({str(task): count for task, count in enumerate(counts)})
    dealt = deal(order, num)
    assert len(dealt) == len(order) // num
    for k, step in enumerate(dealt):
        assert sorted(step) == sorted(order[k * num : (k + 1) * num])
    for task in set(order):
        had = [sum(step[rank] == task for step in dealt) for rank in range(num)]
        assert max(had) - min(had) <= 2


def test_dealing_needs_a_rank():
    with pytest.raises(ValueError, match=r"Expected `num` to be in \[1, inf\), but got 0"):
        deal("ab", 0)


@given(st.lists(st.sampled_from("abcde"), min_size=1, max_size=30), st.integers(0, 12))
@settings(max_examples=300, deadline=None)
def test_every_task_is_introduced_and_nothing_else_moves(order, by):
    found = introduced(order, by)
    within = max(by, len(set(order)))
    assert sorted(found) == sorted(order)
    assert set(found[:within]) == set(order)
    if set(order[:within]) == set(order):
        assert found == tuple(order)
