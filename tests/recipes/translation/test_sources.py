"""Where pairs come from: the packaged strings, the hub, files, and made-up languages."""

import json
import sys
import zipfile
from types import SimpleNamespace

import pandas as pd
import pytest

from recipes._fetch import FetchError
from recipes.translation import load_files, load_hub, load_strings
from recipes.translation.sources import tabulate_strings


def packaged(tmp_path, strings):
    """A wheel with translations, {(component, language): content}, as one table."""
    wheel = tmp_path / "strings.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for (component, language), content in strings.items():
            folder = f"homeassistant/components/{component}/translations"
            archive.writestr(f"{folder}/{language}.json", json.dumps(content))
        archive.writestr("homeassistant/components/lamp/manifest.json", '{"en": "no string"}')
    table = tmp_path / "table"
    with zipfile.ZipFile(wheel) as archive:
        tabulate_strings(archive, table)
    return table


def test_strings_with_the_same_key_are_pairs_and_the_most_common_is_first(tmp_path, monkeypatch):
    table = packaged(
        tmp_path,
        {
            ("lamp", "en"): {"on": "On", "state": {"off": "Off", "dim": "Dim"}},
            ("lamp", "de"): {"on": "An", "state": {"off": "Aus"}},
            ("lamp", "fr"): {"on": "Allumé"},
            ("lamp", "nl"): {"on": "Aan"},
            ("fan", "en"): {"on": "On"},
            ("fan", "de"): {"on": "Ein"},
            ("door", "en"): {"on": "On"},
            ("door", "de"): {"on": "Ein"},
        },
    )
    monkeypatch.setattr("recipes.translation.sources.fetch_member", lambda file, make: table)
    pairs = load_strings(["en-de", "en-fr"])
    rows = pairs[["task", "source", "target"]].itertuples(index=False, name=None)
    assert list(rows) == [
        ("en-de", "On", "Ein"),
        ("en-de", "Off", "Aus"),
        ("en-de", "On", "An"),
        ("en-fr", "On", "Allumé"),
    ]
    assert set(pairs.split) == {""}


def write(folder, **files):
    folder.mkdir(exist_ok=True)
    for name, lines in files.items():
        (folder / name.replace("_", ".")).write_text("\n".join(lines) + "\n", encoding="utf-8")


def test_files_with_splits_keep_them(tmp_path):
    for split in ("train", "val", "test"):
        write(tmp_path, **{f"{split}_en": [f"a {split}"], f"{split}_de": [f"ein {split}"]})
    pairs = load_files(tmp_path, ["en-de"])
    assert pairs.split.tolist() == ["train", "val", "test"]
    assert pairs.target.tolist() == ["ein train", "ein val", "ein test"]


def test_one_file_leaves_the_splits_open_and_each_task_may_have_a_folder(tmp_path):
    write(tmp_path / "en-de", train_en=["on", "off"], train_de=["an", "aus"])
    write(tmp_path / "en-fr", train_en=["door"], train_fr=["porte"])
    pairs = load_files(tmp_path, ["en-de", "en-fr"])
    assert pairs.task.tolist() == ["en-de", "en-de", "en-fr"]
    assert set(pairs.split) == {""}


def test_missing_files_and_unequal_ones_are_refused(tmp_path):
    write(tmp_path, train_en=["on", "off"], train_de=["an"])
    with pytest.raises(ValueError, match=r"train\.en and train\.de .* to have the same number"):
        load_files(tmp_path, ["en-de"])
    with pytest.raises(FileNotFoundError, match=r"train\.fr to be a file of sentences"):
        load_files(tmp_path, ["en-fr"])
    write(tmp_path, test_en=["on"], test_de=["an"], train_de=["an", "aus"])
    with pytest.raises(FileNotFoundError, match=r"val\.en to be a file of sentences"):
        load_files(tmp_path, ["en-de"])


class Rows(list):
    """Rows of a set of the `datasets` library, as far as they are used."""

    def __getitem__(self, column):
        return [row[column] for row in self]

    def select(self, indices):
        return Rows(list(self)[i] for i in indices)


def hub(monkeypatch, load, names=("de-en",)):
    library = SimpleNamespace(get_dataset_config_names=lambda name: names, load_dataset=load)
    monkeypatch.setitem(sys.modules, "datasets", library)


def rows(*texts):
    return Rows({"translation": {"en": text, "de": text.upper()}} for text in texts)


def test_hub_sets_are_found_by_either_order_of_the_languages(monkeypatch):
    asked = []

    def load(name, config):
        asked.append((name, config))
        return {"train": rows("a", "b", "c"), "validation": rows("v"), "test": rows("t")}

    hub(monkeypatch, load)
    pairs = load_hub("opus100", ["en-de"], num_train=2)
    assert asked == [("Helsinki-NLP/opus-100", "de-en")]
    assert pairs.source.tolist() == ["a", "b", "v", "t"]
    assert pairs.target.tolist() == ["A", "B", "V", "T"]
    assert pairs.split.tolist() == ["train", "train", "val", "test"]


def test_hub_set_without_test_rows_is_split_by_content(monkeypatch):
    hub(monkeypatch, lambda name, config: {"train": rows("a", "b")})
    assert set(load_hub("opus_books", ["en-de"], num_train=1).split) == {""}


def test_hub_that_cannot_be_reached_is_one_error_that_names_the_alternatives(monkeypatch):
    def load(name, config):
        raise ConnectionError("no route")

    hub(monkeypatch, load)
    with pytest.raises(FetchError, match=r"no route.*data=files.*data=synthetic.*data=embedded"):
        load_hub("wmt14", ["en-de"])
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(FetchError, match=r"pip install datasets\. Until then use `data=files"):
        load_hub("wmt14", ["en-de"])


def test_hub_set_without_the_pair_names_those_it_has(monkeypatch):
    hub(monkeypatch, None, names=("cs-en", "de-en"))
    with pytest.raises(ValueError, match="among cs-en, de-en for wmt/wmt14, but got 'en-es'"):
        load_hub("wmt14", ["en-es"])


def test_tables_have_the_same_columns(tmp_path, monkeypatch):
    write(tmp_path, train_en=["on"], train_de=["an"])
    hub(monkeypatch, lambda name, config: {"train": rows("a")})
    one, other = load_files(tmp_path, ["en-de"]), load_hub("opus_books", ["en-de"])
    pd.testing.assert_index_equal(one.columns, other.columns)
