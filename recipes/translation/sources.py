"""Pairs of sentences and where they come from: tables of task, split, source and target."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
import pandas as pd
from rich.progress import track

from recipes._fetch import FetchError, PackagedFile, fetch_member

COLUMNS = ("task", "split", "source", "target")
"""Of a table of pairs; split "" where it is to be decided by content."""
EMBEDDED = ("en-de", "en-fr", "en-es")
"""Tasks of the packaged strings and of the synthetic ones."""

_INSTEAD = "use `data=files data.path=FOLDER` with text of your own, or `data=synthetic`"
_STRINGS = PackagedFile(
    package="homeassistant",
    version="2026.2.3",
    sha256="8167820cac4b8defe895fd2c36ac23402a445d1fe6028e8cde24caabb935282c",
    member="strings-en-de-es-fr.parquet",
    python_version="3.14",
    instead=_INSTEAD,
)
_MEMBER = re.compile(r"homeassistant/components/(\w+)/translations/(en|de|es|fr)\.json")
_HUB_NAMES = {"wmt14": "wmt/wmt14", "opus100": "Helsinki-NLP/opus-100"}


_LONGEST = 80
"""Characters of an interface string; what is longer is help text of several sentences."""


def load_strings(tasks: Sequence[str]) -> pd.DataFrame:
    """Interface strings of a home automation program, of up to 80 characters in English.

    Each distinct pair is one row; of several translations of a string the most common is first.

    Args:
        tasks: among `EMBEDDED`.

    Source: the translations of Home Assistant 2026.2.3 (Apache-2.0), as its package has them.

    Raises:
        FetchError: the package is not cached and cannot be downloaded.
    """
    table = pd.read_parquet(fetch_member(_STRINGS, tabulate_strings))
    parts = []
    for task in tasks:
        pairs = table[["en", task.removeprefix("en-")]].dropna()
        pairs.columns = pd.Index(["source", "target"])
        pairs = pairs[pairs["source"].str.len() <= _LONGEST]
        counted = pairs.value_counts().reset_index()
        order = ["count", "source", "target"]
        parts.append(counted.sort_values(order, ascending=[False, True, True]).assign(task=task))
    return pd.concat(parts).assign(split="")[list(COLUMNS)]


def tabulate_strings(archive: ZipFile, path: Path) -> None:
    """Write all strings in the wheel as a parquet table: a row per key, a column per language."""
    rows: dict[str, dict[str, str]] = {}
    members = [found for found in map(_MEMBER.fullmatch, archive.namelist()) if found]
    for member in track(members, "Reading strings"):
        component, language = member.groups()
        for key, text in _leaves(json.loads(archive.read(member.string)), component):
            rows.setdefault(key, {})[language] = text
    pd.DataFrame.from_dict(rows, orient="index", columns=["en", "de", "es", "fr"]).to_parquet(path)


def _leaves(node: Any, key: str) -> Iterator[tuple[str, str]]:
    if isinstance(node, dict):
        for name, child in node.items():
            yield from _leaves(child, f"{key}.{name}")
    else:
        yield key, str(node)


def load_hub(name: str, tasks: Sequence[str], num_train: int | None = None) -> pd.DataFrame:
    """A set of translations on the Hugging Face hub: "wmt14", "opus100" or any like them.

    Args:
        name: of a set with a column `translation` and a configuration for each pair.
        tasks: such as "en-de"; the configuration may be called "de-en".
        num_train: training pairs read of each task, in [1, inf); None: all.

    Raises:
        FetchError: the package `datasets` is missing, or the hub cannot be reached.
        ValueError: the set has no such pair of languages.
    """
    parts = []
    for task in tasks:
        source, target = task.split("-")
        for split, rows in _hub_splits(_hub_set(_HUB_NAMES.get(name, name), task), num_train):
            texts = rows["translation"]
            sides = [text[source] for text in texts], [text[target] for text in texts]
            parts.append(_table(task, split, *sides))
    return pd.concat(parts)


def _hub_set(name: str, task: str) -> Any:
    """The splits of a pair of languages, whichever way round it is called there."""
    instead = f"Until then {_INSTEAD}, or `data=embedded`."
    try:
        datasets: Any = import_module("datasets")
    except ImportError as error:
        msg = f"Expected the package `datasets`, but it is missing: pip install datasets. {instead}"
        raise FetchError(msg) from error
    try:
        known = datasets.get_dataset_config_names(name)
        swapped = "-".join(reversed(task.split("-")))
        found = [config for config in known if config in (task, swapped)]
        if found:
            return datasets.load_dataset(name, found[0])
    except (OSError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        msg = f"Could not load {name!r} from the hub ({reason}). {instead}"
        raise FetchError(msg) from error
    msg = f"Expected `data.tasks` to be among {', '.join(known)} for {name}, but got {task!r}."
    raise ValueError(msg)


def _hub_splits(splits: Any, num_train: int | None) -> list[tuple[str, Any]]:
    train = splits["train"]
    if not {"validation", "test"} <= set(splits):
        return [("", train)]
    train = train.select(range(min(len(train), num_train or len(train))))
    return [("train", train), ("val", splits["validation"]), ("test", splits["test"])]


def load_files(folder: Path, tasks: Sequence[str]) -> pd.DataFrame:
    """Parallel text of one's own: lines of `FOLDER/train.en` and `FOLDER/train.de` belong together.

    Beside `train` there may be `val` and `test`; without both, the pairs are split by content.
    Where several tasks do not share their English side, `FOLDER/en-de/train.en` and so on.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: two files that belong together have different numbers of lines.
    """
    parts = []
    for task in tasks:
        base = folder / task if (folder / task).is_dir() else folder
        languages = task.split("-")
        has_splits = any((base / f"{s}.{languages[0]}").exists() for s in ("val", "test"))
        for split in ("train", "val", "test") if has_splits else ("train",):
            sides = [_lines(base / f"{split}.{language}") for language in languages]
            if len(sides[0]) != len(sides[1]):
                msg = (
                    f"Expected {split}.{languages[0]} and {split}.{languages[1]} in {base} to have "
                    f"the same number of lines, but got {len(sides[0])} and {len(sides[1])}."
                )
                raise ValueError(msg)
            parts.append(_table(task, split if has_splits else "", *sides))
    return pd.concat(parts)


def _lines(path: Path) -> list[str]:
    if not path.is_file():
        msg = f"Expected {path} to be a file of sentences, one a line, but there is none."
        raise FileNotFoundError(msg)
    return path.read_text(encoding="utf-8").splitlines()


def make_pairs(tasks: Sequence[str], num_rows: int = 2000) -> pd.DataFrame:
    """An invented language for each task, word for word in another order; learnable, for tests.

    A word is spelt backwards with an ending of the language; German puts the second word last,
    French the first word, Spanish none.

    Example:
        >>> pairs = make_pairs(["en-de", "en-es"])
        >>> pairs.groupby("task")["target"].first().tolist()
        ['remiten taehen evlaven nafen mooren', 'remitos mooros taehos evlavos nafos']
    """
    rng = np.random.default_rng(0)
    words = ["lamp", "door", "heat", "fan", "timer", "song", "room", "valve", "{name}", "{count}"]
    endings = {"en-de": "en", "en-fr": "eau", "en-es": "os"}
    moved = {"en-de": 1, "en-fr": 0, "en-es": None}
    sources = [list(rng.permutation(words)[: rng.integers(3, 7)]) for _ in range(num_rows)]
    parts = []
    for task in tasks:
        targets = []
        for source in sources:
            order = list(source)
            if (place := moved[task]) is not None:
                order.append(order.pop(place))
            targets.append(" ".join(w if "{" in w else w[::-1] + endings[task] for w in order))
        parts.append(_table(task, "", [" ".join(source) for source in sources], targets))
    return pd.concat(parts)


def _table(task: str, split: str, sources: Sequence[str], targets: Sequence[str]) -> pd.DataFrame:
    columns = {"task": task, "split": split, "source": list(sources), "target": list(targets)}
    return pd.DataFrame(columns, columns=list(COLUMNS))
