"""Who met which item when, and how it was rated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

_COLUMNS = ("user", "item", "rating", "timestamp")
_LEAST = 3  # interactions of a user: one each to test, to validate and to train


@dataclass(frozen=True, slots=True)
class Interactions:
    """Histories of U users with I items, in the order of time. Item 0 is no item: padding.

    Args:
        items: N item numbers of each user, in [1, I]; no item twice.
        ratings: N ratings of each user.
        user_ids: U names.
        item_ids: I + 1 names; that of item 0 is "".
        titles: I + 1 titles.
        user_features: (U, G), column 0 is 1.
        item_features: (I + 1, F), column 0 is 1; row 0 is 0.
    """

    items: Sequence[NDArray[np.int64]]
    ratings: Sequence[NDArray[np.float32]]
    user_ids: tuple[str, ...]
    item_ids: tuple[str, ...]
    titles: tuple[str, ...]
    user_features: NDArray[np.float32]
    item_features: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Window:
    """Interactions `start` to `stop` of a user's history."""

    user: int
    start: int
    stop: int


def make_interactions(
    frame: pd.DataFrame, items: pd.DataFrame | None = None, users: pd.DataFrame | None = None
) -> Interactions:
    """Histories from a table, with what is known of items and users.

    Only a user's first interaction with an item counts. Interactions at the same second are put in
    a fixed random order, since the order of a file may tell of what comes later. Users with fewer
    than 3 interactions are left out.

    Args:
        frame: columns user, item, rating, timestamp.
        items: index item; column title, the other ones features.
        users: index user; features.

    Raises:
        ValueError: a column is missing, or no user has 3 interactions.

    Example:
        >>> rows = {"user": [7] * 3, "item": [5, 4, 5], "rating": 3.0, "timestamp": [2, 1, 3]}
        >>> make_interactions(pd.DataFrame(rows))
        Traceback (most recent call last):
        ValueError: Expected users with at least 3 interactions, but there are none.
        >>> rows["item"][2] = 6
        >>> found = make_interactions(pd.DataFrame(rows))
        >>> [found.item_ids[i] for i in found.items[0]]
        ['4', '5', '6']
    """
    for column in _COLUMNS:
        if column not in frame.columns:
            known = ", ".join(map(repr, frame.columns))
            msg = f"Expected a column {column!r}, but there are only {known}."
            raise ValueError(msg)
    frame = frame.dropna(subset=list(_COLUMNS)).sample(frac=1, random_state=0)
    frame = frame.sort_values("timestamp", kind="stable").drop_duplicates(["user", "item"])
    frame = frame[frame.groupby("user")["item"].transform("size") >= _LEAST]
    if frame.empty:
        msg = f"Expected users with at least {_LEAST} interactions, but there are none."
        raise ValueError(msg)
    codes, item_ids = pd.factorize(frame["item"], sort=True)
    histories = frame.assign(item=codes + 1).groupby("user", sort=True)
    user_ids = [user for user, _ in histories]
    names = items["title"].reindex(item_ids) if items is not None else pd.Series(item_ids)
    features = items.drop(columns="title").reindex(item_ids) if items is not None else None
    about_users = users.reindex(user_ids) if users is not None else None
    return Interactions(
        items=[rows["item"].to_numpy(np.int64, copy=True) for _, rows in histories],
        ratings=[rows["rating"].to_numpy(np.float32, copy=True) for _, rows in histories],
        user_ids=tuple(map(str, user_ids)),
        item_ids=("", *map(str, item_ids)),
        titles=("", *names.fillna("").astype(str)),
        user_features=_with_constant(about_users, len(user_ids)),
        item_features=np.pad(_with_constant(features, len(item_ids)), ((1, 0), (0, 0))),
    )


def _with_constant(features: pd.DataFrame | None, size: int) -> NDArray[np.float32]:
    """A column of ones before the features, if there are any; what is unknown is 0."""
    ones = np.ones((size, 1), np.float32)
    if features is None:
        return ones
    known = features.astype("float32").fillna(0).to_numpy()
    return np.concatenate([ones, known], 1)
