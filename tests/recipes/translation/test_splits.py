"""Test rows never say what training rows say, whatever else is in the table."""

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recipes.translation import content_key, divide, make_pairs

texts = st.lists(st.text("abAB1 {x}!", min_size=1, max_size=6), min_size=1, max_size=60)


def table(sources, split="", task="en-de"):
    return pd.DataFrame({"task": task, "split": split, "source": sources, "target": "x"})


def keys_of(divided):
    return [
        set(divided[divided.split == s].source.map(content_key)) for s in ("train", "val", "test")
    ]


@settings(max_examples=30, deadline=None)
@given(first=texts, second=texts)
def test_no_content_is_in_two_splits_not_even_of_two_tasks(first, second):
    pairs = pd.concat([table(first), table(second, task="en-fr")])
    train, val, test = keys_of(divide(pairs))
    assert train.isdisjoint(val | test)
    assert val.isdisjoint(test)


@settings(max_examples=30, deadline=None)
@given(train=texts, val=texts, test=texts)
def test_given_splits_lose_what_is_tested_elsewhere(train, val, test):
    pairs = pd.concat([table(train, "train"), table(val, "val"), table(test, "test")])
    in_train, in_val, in_test = keys_of(divide(pairs))
    assert in_test == {content_key(text) for text in test if text.strip()}
    assert in_train.isdisjoint(in_val | in_test)
    assert in_val.isdisjoint(in_test)


def test_the_place_of_a_sentence_does_not_depend_on_the_others():
    pairs = make_pairs(["en-de"])
    whole, half = divide(pairs), divide(pairs.iloc[::2])
    both = half.merge(whole, on=["source", "target"], suffixes=("", "_whole"))
    assert len(both) == len(half)
    assert (both.split == both.split_whole).all()
    shares = whole.split.value_counts(normalize=True)
    assert shares["test"] == pytest.approx(0.04, abs=0.02)
    assert shares["val"] == pytest.approx(0.02, abs=0.015)


def test_a_tested_source_has_one_reference_and_trained_ones_keep_all():
    sources = ["On", "On", "Off", "Off"]
    pairs = table(sources).assign(
        split=["test", "test", "train", "train"], target=["Ein", "An", "Aus", "Ab"]
    )
    divided = divide(pairs)
    assert divided[divided.split == "test"].target.tolist() == ["Ein"]
    assert sorted(divided[divided.split == "train"].target) == ["Ab", "Aus"]


def test_rows_without_text_are_dropped():
    assert divide(table(["On", " "])).source.tolist() == ["On"]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param("Fan 1 speed", "fan 2 SPEED", id="number and case"),
        pytest.param("{name} is on", "{device} is on.", id="placeholder"),
        pytest.param("Öffne die Tür!", "öffne die tür", id="not ASCII"),
    ],
)
def test_near_duplicates_have_one_key(one, other):
    assert content_key(one) == content_key(other)
    assert content_key(one) != content_key(f"{one} now")
