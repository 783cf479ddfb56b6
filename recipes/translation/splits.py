"""Which pairs are for training, validation and test: decided by what they say."""

from __future__ import annotations

import re
from hashlib import blake2b

import numpy as np
import pandas as pd

from recipes.translation.codec import PLACEHOLDER

TEST_SHARE, VAL_SHARE = 0.04, 0.02
"""Shares of the distinct contents, in (0, 1)."""


def content_key(text: str) -> str:
    """What near duplicates have in common: letters only, in lower case, without placeholders.

    Example:
        >>> content_key("Fan 1: {speed} too high!") == content_key("fan 2 too high")
        True
    """
    return re.sub(r"[\W\d_]+", "", PLACEHOLDER.sub("", text)).casefold()


def divide(pairs: pd.DataFrame) -> pd.DataFrame:
    """Decide the splits that are open, and drop what is in a later split as well.

    A pair's place is drawn by a hash of its source's `content_key`, so near duplicates are on one
    side, in all tasks, whatever else the table holds. Where splits are given, pairs whose key is
    among those of test (or validation) are dropped from the others. Validation and test keep one
    translation of each source, the first. Rows come out in the order of the hash.

    Args:
        pairs: with `COLUMNS`.

    Returns:
        Rows of the same columns, none empty, no key in two splits.

    Example:
        >>> pairs = pd.DataFrame({"task": "en-de", "split": ["train", "test"],
        ...                       "source": ["Fan 1", "Fan 2"], "target": ["Lüfter", "Lüfter"]})
        >>> divide(pairs)["source"].tolist()
        ['Fan 2']
    """
    pairs = pairs[(pairs.source.str.strip() != "") & (pairs.target.str.strip() != "")]
    keys = pairs.source.map(content_key)
    place = keys.map({key: _place(key) for key in keys.unique()})
    drawn = np.select(
        [place < TEST_SHARE, place < TEST_SHARE + VAL_SHARE], ["test", "val"], "train"
    )
    split = pairs.split.where(pairs.split != "", drawn)
    in_test, in_val = (keys.isin(set(keys[split == name])) for name in ("test", "val"))
    is_kept = (split == "test") | ~in_test & ((split == "val") | ~in_val)
    divided = pairs.assign(split=split, place=place)[is_kept]
    divided = divided.sort_values("place", kind="stable").drop(columns="place")
    repeated = divided.duplicated(["task", "split", "source"]) & (divided.split != "train")
    return divided[~repeated].drop_duplicates().reset_index(drop=True)


def _place(key: str) -> float:
    digest = blake2b(key.encode(), digest_size=8).digest()
    return float(int.from_bytes(digest) / 2**64)
