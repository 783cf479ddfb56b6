"""A fixed number of augmented versions of each sample."""

from __future__ import annotations

import hashlib
import operator
from collections.abc import Sized
from typing import Generic, TypeVar

import torch
from torch.utils.data import Dataset, IterableDataset

from lightning_attnbal.apply.cache._proof import random_state, set_random_state, set_seed
from lightning_attnbal.core import check_integer

T = TypeVar("T")


class FixedViews(Dataset[T], Generic[T]):
    """Random augmentation that can be cached: each sample has `num_views` versions, no more.

    A sample that is augmented anew each time never comes back, and nothing computed from it can be
    read again. Here the wrapped dataset makes its item while Python's, numpy's and PyTorch's global
    generators are seeded from (seed, index, view), and are put back afterwards; which view comes is
    drawn each time, from PyTorch's global generator. The store holds `num_views` rows per sample,
    and after e epochs a share of 1 - (1 - 1/num_views)^e of what is asked for is there.

    Generators of the dataset's own are not seeded: augmentation that draws from them stays random,
    and the cache refuses it. Items must depend on nothing else that changes, the worker included.

    Args:
        dataset: map-style, with integer indices.
        num_views: versions of each sample, in [1, inf). A few are enough for most of the gain of
            augmentation; with many, few samples come back.
        seed: for other versions, in [0, 2^63).

    Raises:
        TypeError: `dataset` cannot be indexed.
        ValueError: a number is out of range.

    Example:
        >>> class Noisy(Dataset[float]):
        ...     def __len__(self) -> int:
        ...         return 100
        ...
        ...     def __getitem__(self, index: int) -> float:
        ...         return index + torch.rand(1).item()
        >>> views = FixedViews(Noisy(), num_views=3)
        >>> len(views), len({views[7] for _ in range(50)})
        (100, 3)
    """

    def __init__(self, dataset: Dataset[T], num_views: int, seed: int = 0) -> None:
        if isinstance(dataset, IterableDataset) or not hasattr(dataset, "__getitem__"):
            msg = (
                "Expected `dataset` to be map-style (with __getitem__), "
                f"but got {type(dataset).__name__}."
            )
            raise TypeError(msg)
        self.dataset = dataset
        self.num_views = check_integer("num_views", num_views, low=1)
        self.seed = check_integer("seed", seed, low=0)

    def __len__(self) -> int:
        if not isinstance(self.dataset, Sized):
            msg = f"object of type {type(self.dataset).__name__!r} has no len()"
            raise TypeError(msg)
        return len(self.dataset)

    def __getitem__(self, index: int) -> T:
        """One of the versions of a sample."""
        return self.view(index, int(torch.randint(self.num_views, ())))

    def view(self, index: int, view: int) -> T:
        """A certain version of a sample; the random state is left alone.

        Args:
            index: of the sample.
            view: in [0, num_views).
        """
        view = check_integer("view", view, low=0, high=self.num_views - 1)
        state = random_state()
        set_seed(self._seed_of(operator.index(index), view))
        try:
            return self.dataset[index]
        finally:
            set_random_state(state)

    def _seed_of(self, index: int, view: int) -> int:
        index = index + len(self) if index < 0 else index
        digest = hashlib.blake2b(f"{self.seed} {index} {view}".encode(), digest_size=8)
        return int.from_bytes(digest.digest())
