"""Tables of texts with several labels: where they come from, and that no text is in two splits."""

import sys

import numpy as np
import pandas as pd
import pytest

from recipes._common.config import Source
from recipes._fetch import FetchError
from recipes.text import TextDataConfig, load_table, make_table

ROWS = [("fine", "good", "a"), ("awful ", "bad", None), ("awful", "good", "b"), (None, "bad", "a")]
FRAME = pd.DataFrame(ROWS, columns=["text", "mood", "topic"])


def config(**keys):
    return TextDataConfig(**{"tasks": ["mood", "topic"], **keys})


def numbered(num_rows, num_test):
    """Texts that are their own numbers, of which the last are published as a test part."""
    frame = pd.DataFrame({"text": map(str, range(num_rows)), "odd": np.arange(num_rows) % 2})
    return make_table(frame, "text", {"odd": "odd"}, is_test=np.arange(num_rows) >= 100 - num_test)


def test_equal_texts_are_kept_once_and_labels_may_be_missing():
    table = make_table(FRAME, "text", {"mood": "mood"})
    assert table.texts == ["fine", "awful"]
    assert table.labels["mood"].tolist() == [1, 0]
    assert table.class_names["mood"] == ("bad", "good")


def test_a_missing_label_is_minus_one():
    frame = pd.DataFrame({"text": ["a", "b", "c"], "x": ["u", "v", None], "y": [1, None, 2]})
    table = make_table(frame, "text", {"x": "x", "y": "y"})
    assert {task: codes.tolist() for task, codes in table.labels.items()} == {
        "x": [0, 1, -1],
        "y": [0, -1, 1],
    }


def test_a_text_that_is_in_both_published_parts_is_a_test_row():
    frame = pd.DataFrame({"text": ["a", "b", "a", "c"], "x": [0, 1, 0, 1]})
    table = make_table(frame, "text", {"x": "x"}, is_test=np.array([False, False, True, True]))
    assert {t: bool(is_test) for t, is_test in zip(table.texts, table.is_test, strict=True)} == {
        "a": True,
        "b": False,
        "c": True,
    }


@pytest.mark.parametrize("num_test", [None, 7], ids=["whole test part", "seven"])
def test_the_published_test_part_is_the_test_part(num_test):
    table = numbered(100, num_test=20)
    parts = {
        split: {int(table.texts[i]) for i in rows}
        for split, rows in table.split(None, 10, num_test).items()
    }
    assert parts["test"] <= set(range(80, 100))
    assert len(parts["test"]) == (num_test or 20)
    assert parts["train"] | parts["val"] == set(range(80))
    assert len(parts["val"]) == 10


def test_without_a_test_part_a_fifth_is_set_aside_by_item():
    frame = pd.DataFrame({"text": map(str, range(60)), "x": np.arange(60) % 2, "of": range(60)})
    frame["of"] //= 3
    table = make_table(frame, "text", {"x": "x"}, item="of")
    parts = {
        split: {table.items[i] for i in rows} for split, rows in table.split(None, 9, None).items()
    }
    assert len(parts["test"]) == 4
    assert parts["train"].isdisjoint(parts["test"] | parts["val"])
    assert parts["val"].isdisjoint(parts["test"])


def test_a_column_that_is_not_there_is_named():
    with pytest.raises(ValueError, match="one of 'text', 'mood', 'topic', but got 'colour'"):
        make_table(FRAME, "text", {"colour": "colour"})


def test_a_column_of_one_class_is_refused():
    with pytest.raises(ValueError, match="column 'mood' to have 2 classes or more, but got 1"):
        make_table(FRAME.assign(mood="good"), "text", {"mood": "mood"})


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_tables_of_ones_own(tmp_path, suffix):
    path = tmp_path / f"mine.{suffix}"
    frame = pd.DataFrame({"say": ["a", "b"], "m": ["x", "y"], "topic": ["p", "q"]})
    if suffix == "csv":
        frame.to_csv(path, index=False)
    else:
        frame.to_json(path, orient="records", lines=True)
    asked = config(
        source=Source.files, path=str(path), text_column="say", label_columns={"mood": "m"}
    )
    table = load_table(asked)
    assert table.texts == ["a", "b"]
    assert table.class_names == {"mood": ("x", "y"), "topic": ("p", "q")}


@pytest.mark.parametrize("path", ["mine.csv", "mine.xlsx", None], ids=str)
def test_what_is_no_table_is_refused(path):
    with pytest.raises(ValueError, match=r"`data.path` to be a file that ends in .csv or .jsonl"):
        load_table(config(source=Source.files, path=path))


def test_reviews_have_four_tasks_and_items(tmp_path, monkeypatch):
    path = tmp_path / "reviews.parquet"
    columns = {
        "Review Text": ["good", "bad", "so so", None],
        "Rating": [5, 1, 3, 3],
        "Recommended IND": [1, 0, 1, 1],
        "Department Name": ["Tops", "Bottoms", "Tops", "Tops"],
        "Class Name": ["Knits", "Pants", None, "Knits"],
        "Clothing ID": [7, 7, 9, 9],
    }
    pd.DataFrame(columns).to_parquet(path)
    monkeypatch.setattr("recipes.text.corpus.fetch_member", lambda file: path)
    table = load_table(config(tasks=["rating", "recommended", "class"]))
    assert (table.texts, table.items) == (["good", "bad"], [7, 7])
    assert table.class_names["rating"] == ("1 star", "5 stars")
    assert [table.class_names["recommended"][i] for i in table.labels["recommended"]] == [
        "yes",
        "no",
    ]
    with pytest.raises(ValueError, match=r"among 'rating', .* for reviews, but got 'colour'"):
        load_table(config(tasks=["colour"]))


class Feature:
    names = ("world", "sports")
    int2str = None


class Part:
    """A part of a hub's set, as far as it is used."""

    def __init__(self, **columns):
        self.frame = pd.DataFrame(columns)
        self.features = {"text": object(), "label": Feature()}

    def to_pandas(self):
        return self.frame


@pytest.fixture
def hub(monkeypatch):
    """A `datasets` package whose `load_dataset` is to be set."""
    module = type(sys)("datasets")
    module.exceptions = type(sys)("exceptions")
    module.exceptions.DatasetsError = type("DatasetsError", (Exception,), {})
    monkeypatch.setitem(sys.modules, "datasets", module)
    return module


def test_hub_parts_keep_their_place_and_their_class_names(hub):
    asked = []
    hub.load_dataset = lambda name, subset: (
        asked.append((name, subset))
        or {
            "train": Part(text=["a", "b", "c"], label=[0, 1, 1]),
            "test": Part(text=["d", "a"], label=[1, 0]),
        }
    )
    keys = {"name": "news", "subset": "small", "tasks": ["topic"]}
    table = load_table(config(source=Source.hub, label_columns={"topic": "label"}, **keys))
    assert asked == [("news", "small")]
    assert sorted(zip(table.texts, table.is_test, strict=True)) == [
        ("a", True),
        ("b", False),
        ("c", False),
        ("d", True),
    ]
    assert table.class_names == {"topic": ("sports", "world")}


def test_an_unreachable_hub_names_the_alternatives(hub):
    def fail(*_):
        raise hub.exceptions.DatasetsError("no route")

    hub.load_dataset = fail
    with pytest.raises(FetchError, match=r"no route.*`data=embedded`.*`data=files data.path="):
        load_table(config(source=Source.hub, name="news"))


def test_a_missing_package_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(FetchError, match=r"pip install datasets.*`data=embedded`"):
        load_table(config(source=Source.hub, name="news"))


def test_a_hub_wants_a_name():
    with pytest.raises(ValueError, match=r"`data.name` to be a text set"):
        load_table(config(source=Source.hub))
