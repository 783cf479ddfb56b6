"""Histories as batches: how they are split, cut into windows and padded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset, Sampler

from lightning_attnbal.core import check_integer
from recipes._common import Split, TasksData, take_rows
from recipes._common.heads import share_inputs
from recipes.recommendation.baselines import baseline_scores
from recipes.recommendation.config import RecommendationDataConfig
from recipes.recommendation.interactions import Interactions, Window
from recipes.recommendation.sources import load_interactions
from recipes.text.data import LengthBatches

_BUCKET = 20  # batches are padded to a multiple of so many interactions: few different shapes


class RecommendationData(TasksData):
    """The last interaction of each user is for test, the one before for validation.

    All tasks ask about the same windows of at most N interactions: which item is `next`, what
    `rating` it gets, and whether that is a `like`; each from the interactions before it. In
    training each interaction of a window is asked about, in validation and test only the last one.

    What a test row contains is one user's history before the row. Nothing else, such as an item's
    popularity, is taken from validation or test rows. Other users' training rows may be later in
    time than a test row, as always where each user's last interaction is left out.

    A batch has `items` and `ratings` (B, N), 0 where padded; `target` (B, N), whether it is asked
    about; `user_features` (B, G); in validation and test `seen` (B, I + 1), items that cannot be
    next since the user had them before.

    Args:
        config: where the interactions are, and how long windows are.

    Raises:
        ValueError: a number is outside its range.

    Attributes:
        interactions: all of them, after `setup`.
        windows: those of each split, after `setup`.
    """

    known_tasks = ("next", "rating", "like")
    same_samples = True
    config: RecommendationDataConfig

    def __init__(self, config: RecommendationDataConfig) -> None:
        super().__init__(config)
        check_integer("data.max_length", config.max_length, low=2)
        self.interactions: Interactions
        self.windows: dict[Split, list[Window]]

    def _prepare(self) -> None:
        self.interactions = load_interactions(self.config)
        self.windows = split_windows(
            [len(items) for items in self.interactions.items],
            self.config.max_length,
            {split: getattr(self.config, f"num_{split}") for split in ("train", "val", "test")},
        )

    def rows(self, task: str, split: Split) -> Dataset[Any]:  # noqa: ARG002 (all have the same)
        """Windows of the split."""
        return Windows(self.interactions, self.windows[split], is_train=split == "train")

    def batches(self, task: str, generator: torch.Generator) -> Sampler[list[int]]:  # noqa: ARG002
        """Windows of about one length go together."""
        lengths = [window.stop - window.start for window in self.windows["train"]]
        return LengthBatches(lengths, self.config.batch_size, generator)

    def collate(self, rows: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        """Pad to the longest, rounded up."""
        batch = {key: pad_sequence([row[key] for row in rows], batch_first=True) for key in rows[0]}
        size = batch["items"].shape[1]
        more = min(-size % _BUCKET, self.config.max_length - size)
        return batch | {key: pad(batch[key], (0, more)) for key in ("items", "ratings", "target")}

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:  # noqa: ARG002
        """Let windows that several tasks share be encoded once (Lightning's hook)."""
        return share_inputs(batch)

    def baselines(self) -> dict[str, dict[str, float]]:
        """Popularity and matrix factorisations on the test rows."""
        scores = baseline_scores(
            self.interactions, self.windows["train"], self.windows["test"], self.config.like_from
        )
        asked = {
            name: {key: v for key, v in found.items() if key.partition("/")[0] in self.tasks}
            for name, found in scores.items()
        }
        return {name: found for name, found in asked.items() if found}


class Windows(Dataset[dict[str, Tensor]]):
    """Windows of histories.

    Args:
        interactions: what they are windows of.
        windows: which.
        is_train: whether all interactions are asked about; else the last one.
    """

    def __init__(
        self, interactions: Interactions, windows: Sequence[Window], *, is_train: bool
    ) -> None:
        self._of, self._windows, self._is_train = interactions, windows, is_train
        self._user_features = torch.from_numpy(interactions.user_features)

    def __len__(self) -> int:
        return len(self._windows)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        user, start, stop = (w := self._windows[index]).user, w.start, w.stop
        items = torch.from_numpy(self._of.items[user])
        target = torch.full((stop - start,), self._is_train)
        target[-1] = True
        row = {
            "items": items[start:stop],
            "ratings": torch.from_numpy(self._of.ratings[user])[start:stop],
            "target": target,
            "user_features": self._user_features[user],
        }
        if not self._is_train:
            row["seen"] = torch.zeros(len(self._of.titles), dtype=torch.bool)
            row["seen"][items[: stop - 1]] = True
        return row


def split_windows(
    lengths: Sequence[int], size: int, most: dict[Split, int | None]
) -> dict[Split, list[Window]]:
    """Windows of each split, in a fixed random order that depends on no seed.

    The last interaction of a history is what the test asks about, the one before what validation
    asks about; the rest is cut into windows from its end.

    Args:
        lengths: U lengths of histories, each in [3, inf).
        size: interactions per window N.
        most: rows per split at most; None: all.

    Example:
        >>> found = split_windows([7], 3, {"train": None, "val": 1, "test": None})
        >>> [(w.start, w.stop) for w in found["train"]]
        [(2, 5), (0, 2)]
        >>> found["val"], found["test"]
        ([Window(user=0, start=3, stop=6)], [Window(user=0, start=4, stop=7)])
    """
    stops: dict[Split, list[tuple[int, int]]] = {
        "train": [(u, stop) for u, n in enumerate(lengths) for stop in range(n - 2, 0, -size)],
        "val": [(user, n - 1) for user, n in enumerate(lengths)],
        "test": [(user, n) for user, n in enumerate(lengths)],
    }
    found: dict[Split, list[Window]] = {}
    for split, ends in stops.items():
        order = np.random.default_rng(0).permutation(len(ends)).tolist()
        chosen = [ends[i] for i in take_rows(order, most[split])]
        found[split] = [Window(user, max(0, stop - size), stop) for user, stop in chosen]
    return found
