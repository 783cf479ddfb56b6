"""Texts with the labels of several tasks, and where they come from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from recipes._common.config import Source
from recipes._fetch import FetchError
from recipes.text.config import TextDataConfig
from recipes.text.corpus import make_synthetic, read_reviews
from recipes.text.data import split_by_item

REVIEW_COLUMNS = {
    "rating": "Rating",
    "recommended": "Recommended IND",
    "department": "Department Name",
    "class": "Class Name",
}
"""Task → column of the customer reviews."""
_NUM_SYNTHETIC = 400
_INSTEAD = (
    "use `data=embedded` (customer reviews, from a package), or a table of your own with "
    "`data=files data.path=FILE.csv`"
)


@dataclass(frozen=True, slots=True)
class TextTable:
    """N different texts with labels of each task.

    Args:
        texts: of all rows.
        items: what the texts are about, or the texts themselves; no item is split between train,
            validation and test.
        labels: task → N class indices; -1 where there is none.
        class_names: task → names of its classes.
        is_test: which rows are the published test part; None where there is none.
    """

    texts: list[str]
    items: list[object]
    labels: Mapping[str, NDArray[np.int64]]
    class_names: Mapping[str, tuple[str, ...]]
    is_test: NDArray[np.bool_] | None = None

    def split(
        self, num_train: int | None, num_val: int, num_test: int | None
    ) -> dict[str, NDArray[np.intp]]:
        """Row numbers of `train`, `val` and `test`, in fixed random orders that need no seed.

        Args:
            num_train: in [1, inf); None: all that the others leave.
            num_val: in [1, inf).
            num_test: in [1, inf); None: the whole published test part, else a fifth of the rows.

        Raises:
            ValueError: there are too few rows.
        """
        if self.is_test is None:
            sizes = (num_train, num_val, num_test or len(self.texts) // 5)
            return split_by_item(self.items, sizes)
        own, published = np.flatnonzero(~self.is_test), np.flatnonzero(self.is_test)
        parts = split_by_item([self.items[i] for i in own], (num_train, num_val, 0))
        test = np.random.default_rng(0).permutation(published)[:num_test]
        return {"train": own[parts["train"]], "val": own[parts["val"]], "test": test}


def make_table(
    frame: pd.DataFrame,
    text: str,
    columns: Mapping[str, str],
    *,
    item: str | None = None,
    is_test: NDArray[np.bool_] | None = None,
) -> TextTable:
    """Texts and labels of a frame; equal texts are kept once, those of the test part rather.

    Rows without a text or without any label are left out.

    Args:
        frame: one row a text.
        text: column of the texts.
        columns: task → column of its labels.
        item: column of what the texts are about; None: nothing is known, so the texts themselves.
        is_test: which rows are the published test part.

    Raises:
        ValueError: a column is missing, or has one class only.

    Example:
        >>> frame = pd.DataFrame({"text": ["a", "b", "a"], "mood": ["good", "bad", "bad"]})
        >>> table = make_table(frame, "text", {"mood": "mood"})
        >>> table.texts, table.labels["mood"].tolist(), table.class_names["mood"]
        (['a', 'b'], [1, 0], ('bad', 'good'))
    """
    for column in (text, *columns.values()):
        if column not in frame.columns:
            known = ", ".join(map(repr, frame.columns))
            msg = f"Expected a column of the texts to be one of {known}, but got {column!r}."
            raise ValueError(msg)
    frame = frame.assign(**{_TEST: False if is_test is None else is_test})
    frame = frame.dropna(subset=[text]).dropna(subset=[*columns.values()], how="all")
    frame[text] = frame[text].astype(str).str.strip()
    frame = frame.sort_values(_TEST, ascending=False, kind="stable").drop_duplicates(text)
    labels, names = {}, {}
    for task, column in columns.items():
        codes, classes = pd.factorize(frame[column], sort=True)
        if len(classes) < 2:
            msg = f"Expected column {column!r} to have 2 classes or more, but got {len(classes)}."
            raise ValueError(msg)
        labels[task], names[task] = codes.astype(np.int64), tuple(map(str, classes))
    texts = frame[text].tolist()
    return TextTable(
        texts,
        texts if item is None else frame[item].tolist(),
        labels,
        names,
        None if is_test is None else frame[_TEST].to_numpy(dtype=bool),
    )


_TEST = "is a row of the published test part"


def load_table(config: TextDataConfig) -> TextTable:
    """The texts that the configuration asks for, with the labels of its tasks.

    Raises:
        FetchError: they cannot be had.
        ValueError: there is no such column, or a key is missing.
    """
    if config.source is Source.synthetic:
        return _synthetic(config.tasks)
    if config.source is Source.embedded:
        return _reviews(config.tasks)
    columns = {task: config.label_columns.get(task, task) for task in config.tasks}
    if config.source is Source.files:
        return make_table(_read(Path(config.path or "")), config.text_column, columns)
    frame, is_test = _from_hub(config)
    return make_table(frame, config.text_column, columns, is_test=is_test)


def _reviews(tasks: list[str]) -> TextTable:
    columns = _known(tasks)
    frame = read_reviews().dropna(subset=[*REVIEW_COLUMNS.values()])
    stars = frame["Rating"].map(lambda n: f"{n} star" if n == 1 else f"{n} stars")
    advice = frame["Recommended IND"].map({0: "no", 1: "yes"})
    frame = frame.assign(**{"Rating": stars, "Recommended IND": advice})
    return make_table(frame, "Review Text", columns, item="Clothing ID")


def _synthetic(tasks: list[str]) -> TextTable:
    columns = _known(tasks)
    corpus = make_synthetic(_NUM_SYNTHETIC)
    labels = {"Rating": corpus.labels, "Recommended IND": corpus.labels > 2}
    others = {"Department Name": corpus.labels % 3, "Class Name": corpus.labels}
    frame = pd.DataFrame({"text": corpus.texts, **labels, **others})
    return make_table(frame, "text", columns)


def _known(tasks: list[str]) -> dict[str, str]:
    unknown = [task for task in tasks if task not in REVIEW_COLUMNS]
    if unknown:
        known = ", ".join(map(repr, REVIEW_COLUMNS))
        msg = f"Expected `data.tasks` to be among {known} for reviews, but got {unknown[0]!r}."
        raise ValueError(msg)
    return {task: REVIEW_COLUMNS[task] for task in tasks}


def _read(path: Path) -> pd.DataFrame:
    readers = {".csv": pd.read_csv, ".jsonl": lambda file: pd.read_json(file, lines=True)}
    if path.suffix not in readers or not path.is_file():
        known = " or ".join(readers)
        msg = f"Expected `data.path` to be a file that ends in {known}, but got {str(path)!r}."
        raise ValueError(msg)
    return readers[path.suffix](path)


def _from_hub(config: TextDataConfig) -> tuple[pd.DataFrame, NDArray[np.bool_] | None]:
    """Training and test part as one frame, classes by name; which rows are the test part."""
    if not config.name:
        msg = "Expected `data.name` to be a text set of the Hugging Face hub, but got none."
        raise ValueError(msg)
    try:
        import datasets  # type: ignore[import-untyped]  # it ships no types
    except ImportError as error:
        msg = f"`data=hub` needs the package datasets (pip install datasets); or {_INSTEAD}."
        raise FetchError(msg) from error
    try:
        parts = datasets.load_dataset(config.name, config.subset)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        msg = f"Could not load {config.name!r} from the hub ({error}). Until it can, {_INSTEAD}."
        raise FetchError(msg) from error
    frames = [_named(parts[name]) for name in ("train", "test") if name in parts]
    is_test = np.repeat([False, True][: len(frames)], [len(frame) for frame in frames])
    return pd.concat(frames, ignore_index=True), is_test if len(frames) == 2 else None


def _named(part: object) -> pd.DataFrame:
    """A part of a hub's set as a frame, with class names instead of numbers; -1 is none."""
    frame: pd.DataFrame = part.to_pandas()  # type: ignore[attr-defined]  # datasets is untyped
    for column, feature in part.features.items():  # type: ignore[attr-defined]
        if hasattr(feature, "int2str"):
            frame[column] = frame[column].map(dict(enumerate(feature.names)))
    return frame
