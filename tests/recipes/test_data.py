"""Texts: where they come from, that no item straddles a split, and what a batch looks like."""

from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recipes.text import (
    Corpus,
    ReviewsData,
    load_csv,
    load_reviews,
    make_synthetic,
    packaged_encoder,
)
from recipes.text.data import split_by_item


@given(rows_per_item=st.lists(st.integers(1, 4), min_size=31, max_size=60))
def test_no_item_is_in_two_splits(rows_per_item):
    items = np.repeat(np.arange(len(rows_per_item)), rows_per_item).tolist()
    rows = split_by_item(items, sizes=(10, 5, 10))
    train, val, test = ({items[i] for i in rows[split]} for split in ("train", "val", "test"))
    assert [len(rows[split]) for split in ("train", "val", "test")] == [10, 5, 10]
    assert train.isdisjoint(val | test)
    assert val.isdisjoint(test)


def test_test_rows_do_not_depend_on_how_many_are_trained_on():
    items = list(range(100))
    few, many = split_by_item(items, (10, 10, 20)), split_by_item(items, (50, 10, 20))
    np.testing.assert_array_equal(few["test"], many["test"])
    np.testing.assert_array_equal(few["val"], many["val"])


def test_too_few_rows_are_refused():
    with pytest.raises(ValueError, match=r"Expected `num_train` to be in \[1, 5\] here, but got 6"):
        split_by_item(list(range(10)), (6, 2, 3))


def test_csv_keeps_equal_texts_together_and_sorts_the_classes(tmp_path):
    path = tmp_path / "queries.csv"
    path.write_text("text,category\nlost card,card\nrate?,exchange\nlost card,card\n,card\n")
    corpus = load_csv(path, label="category")
    assert corpus.class_names == ("card", "exchange")
    assert corpus.labels.tolist() == [0, 1, 0]
    assert corpus.items[0] == corpus.items[2] != corpus.items[1]


def test_csv_without_the_column_names_those_it_has(tmp_path):
    path = tmp_path / "queries.csv"
    path.write_text("text,category\nlost card,card\n")
    with pytest.raises(ValueError, match="to be one of 'text', 'category', but got 'label'"):
        load_csv(path)


def test_reviews_are_rows_with_text_and_stars_from_one(tmp_path, monkeypatch):
    path = tmp_path / "reviews.parquet"
    table = {"Review Text": ["good", None, "bad"], "Rating": [5, 3, 1], "Clothing ID": [7, 7, 9]}
    pd.DataFrame(table).to_parquet(path)
    monkeypatch.setattr("recipes.text.corpus.fetch_member", lambda file: path)
    corpus = load_reviews()
    assert corpus.texts == ["good", "bad"]
    assert corpus.labels.tolist() == [4, 0]
    assert corpus.items == [7, 9]
    assert corpus.class_names[4] == "5 stars"


def test_reviews_by_kind_of_garment(tmp_path, monkeypatch):
    path = tmp_path / "reviews.parquet"
    table = {
        "Review Text": ["good", "bad", "so so"],
        "Class Name": ["Pants", None, "Dresses"],
        "Clothing ID": [7, 7, 9],
    }
    pd.DataFrame(table).to_parquet(path)
    monkeypatch.setattr("recipes.text.corpus.fetch_member", lambda file: path)
    corpus = load_reviews("Class Name")
    assert (corpus.texts, corpus.labels.tolist()) == (["good", "so so"], [1, 0])
    assert corpus.class_names == ("Dresses", "Pants")
    with pytest.raises(ValueError, match="`label` to be one of 'Rating', 'Class Name'"):
        load_reviews("Colour")


@pytest.mark.parametrize(
    ("labels", "items", "message"),
    [
        pytest.param([0, 2], [1, 2], r"Expected `labels` to be in \[0, 2\), but got", id="label"),
        pytest.param([0, 1], [1], r"to be of one length in \[1, inf\), but got", id="length"),
    ],
)
def test_inconsistent_corpus_is_refused(labels, items, message):
    with pytest.raises(ValueError, match=message):
        Corpus(["a", "b"], np.array(labels), items, ("x", "y"))


@pytest.fixture(scope="module")
def data():
    data = ReviewsData(
        packaged_encoder(),
        40,
        num_val=8,
        num_test=8,
        max_tokens=24,
        batch_size=16,
        load=partial(make_synthetic, 56),
    )
    data.setup()
    return data


def test_batches_are_padded_to_a_multiple_of_16(data):
    batches = list(data.train_dataloader())
    assert [len(batch["labels"]) for batch in batches] == [16, 16, 8]
    assert {batch["input_ids"].shape[1] for batch in batches} <= {16, 32}
    for batch in batches:
        is_padding = batch["input_ids"] == data.tokenizer.pad_token_id
        torch.testing.assert_close(batch["attention_mask"], (~is_padding).long())


def test_every_fit_sees_the_same_batches(data):
    first, again = (list(data.train_dataloader()) for _ in range(2))
    for a, b in zip(first, again, strict=True):
        torch.testing.assert_close(a, b)


def test_sizes_out_of_range_are_refused():
    with pytest.raises(ValueError, match=r"Expected `num_train` to be in \[1, inf\), but got 0"):
        ReviewsData(packaged_encoder(), 0)
