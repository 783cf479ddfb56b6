"""Which tasks are trained together, on which data, and what the full run would be."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from recipes.benchmarks.compare.tasks import banking_corpus, split_by_source
from recipes.text import Corpus, ReviewsData, TextTasksData, load_reviews, packaged_encoder

_REVIEW_LABELS = {
    "rating": "Rating",
    "recommended": "Recommended IND",
    "department": "Department Name",
    "class": "Class Name",
}


@dataclass(frozen=True, kw_only=True)
class Suite:
    """Tasks on one MiniLM encoder; the full run passes `epochs` times over the data of each.

    Args:
        name: of the suite.
        sizes: task → training rows.
        is_shared: whether all tasks ask about the same texts.
        num_test: test rows of each task; as many others to choose learning rates by.
        max_tokens: texts are cut there.
        batch_size: texts per batch.
        epochs: passes of the full run.
        lr: middle one of the peak learning rates tried.
        revision: counted up when it changes, so that finished runs are run again.
    """

    name: str
    sizes: Mapping[str, int]
    is_shared: bool = False
    num_test: int = 1000
    max_tokens: int = 32
    batch_size: int = 32
    epochs: int = 2
    lr: float = 4e-4
    revision: int = 1

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names."""
        return tuple(self.sizes)

    def data(
        self, seed: int, tasks: tuple[str, ...] = (), mode: Literal["one", "all"] = "one"
    ) -> TextTasksData:
        """The tasks' loaders, tokenised; of some of the tasks only, if named."""
        chosen = {task: self._texts(task, seed) for task in tasks or self.tasks}
        is_shared = self.is_shared and len(chosen) > 1
        data = TextTasksData(chosen, is_shared=is_shared, mode=mode)
        data.setup()
        return data

    def _texts(self, task: str, seed: int) -> ReviewsData:
        is_banking = task == "banking77"
        return ReviewsData(
            packaged_encoder(),
            self.sizes[task],
            num_val=self.num_test,
            num_test=self.num_test,
            max_tokens=self.max_tokens,
            batch_size=self.batch_size,
            seed=seed,
            bucket=8,
            by_length=True,
            load=partial(corpus, task),
            **({"split": split_three_ways} if is_banking else {}),  # type: ignore[arg-type]
        )


def split_three_ways(
    items: Sequence[Hashable], sizes: tuple[int, int, int]
) -> dict[str, NDArray[np.intp]]:
    """Rows of "test" to test on; of "train" some to train on and others to choose rates by.

    Example:
        >>> rows = split_three_ways(["train", "train", "train", "test"], (2, 1, 1))
        >>> len(rows["train"]), len(rows["val"]), rows["test"].tolist()
        (2, 1, [3])
    """
    rows = split_by_source(items, sizes)
    held_out = split_by_source(items, sizes, num_dev=sizes[1])
    return {"train": held_out["train"], "val": held_out["val"], "test": rows["test"]}


@cache
def corpus(task: str) -> Corpus:
    """Its texts; reviews that lack one of the labels are left out of all, so that rows agree."""
    if task == "banking77":
        return banking_corpus()
    return load_reviews(_REVIEW_LABELS[task], also=("Class Name",))


SUITES = {
    suite.name: suite
    for suite in (
        Suite(name="reviews", sizes=dict.fromkeys(_REVIEW_LABELS, 1000), is_shared=True),
        Suite(name="sets", sizes={"banking77": 2400, "class": 800, "rating": 240}, revision=2),
    )
}
