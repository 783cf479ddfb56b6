"""Passes over a loader's data: drawn from seeds, entered at any batch."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset

_KEPT = (  # not `in_order`: batches must come in the order of their indices, or none can be skipped
    "num_workers",
    "collate_fn",
    "pin_memory",
    "timeout",
    "worker_init_fn",
    "multiprocessing_context",
    "prefetch_factor",
    "persistent_workers",
)


class Passes(ABC):
    """Batches of a loader, pass by pass; the rebuilt loader (and its workers) outlives a pass."""

    def __init__(self, loader: DataLoader[Any], rank: int, **batches: Any) -> None:
        self._user, self._rank = loader, rank
        self._generator = torch.Generator()
        kept = {name: getattr(loader, name) for name in _KEPT}
        self._rebuilt: DataLoader[Any] = DataLoader(
            loader.dataset, generator=self._generator, **batches, **kept
        )

    def start(self, cycle: int, seed: int, position: int) -> Iterator[Any]:
        """The batches of pass `cycle` from `position` on."""
        for part in (*samplers_of(self._user), self._user.dataset):
            if callable(set_epoch := getattr(part, "set_epoch", None)):
                set_epoch(cycle)
        self._generator.manual_seed(derive_seed(seed, "workers", self._rank))
        return self._start(seed, position)

    @abstractmethod
    def _start(self, seed: int, position: int) -> Iterator[Any]:
        """The batches of a pass, its first `position` skipped."""


class _Streaming(Passes):
    """Of an iterable data set: batches as they come."""

    def __init__(self, loader: DataLoader[Any], rank: int) -> None:
        super().__init__(loader, rank, batch_size=loader.batch_size, drop_last=loader.drop_last)

    def _start(self, seed: int, position: int) -> Iterator[Any]:  # noqa: ARG002 - nothing to draw
        return islice(self._rebuilt, position, None)


class _Indexed(Passes):
    """Of a map-style data set: batches over a list of indices, drawn at the start of each pass."""

    def __init__(self, loader: DataLoader[Any], rank: int, world_size: int) -> None:
        self._world_size = world_size
        self._indices: list[Any] = []
        if loader.batch_sampler is not None:
            super().__init__(loader, rank, batch_sampler=self._indices)
        else:  # the data set itself makes a batch of an index
            super().__init__(loader, rank, batch_size=None, sampler=self._indices)

    def _start(self, seed: int, position: int) -> Iterator[Any]:
        sampler, batch_sampler = self._user.sampler, self._user.batch_sampler
        with _seeded(seed, samplers_of(self._user)):
            drawn: list[Any] = list(sampler if batch_sampler is None else batch_sampler)
        turns = -(-len(drawn) // self._world_size)
        self._indices[:] = (
            drawn[(turn * self._world_size + self._rank) % len(drawn)]
            for turn in range(position, turns)
        )
        return iter(self._rebuilt)


def make_passes(loader: DataLoader[Any], rank: int, world_size: int) -> Passes:
    """The passes over a loader's data, of the kind that its data set allows."""
    if isinstance(loader.dataset, IterableDataset):
        return _Streaming(loader, rank)
    return _Indexed(loader, rank, world_size)


def samplers_of(loader: DataLoader[Any]) -> tuple[Any, ...]:
    """Whatever may decide the order of a loader."""
    inner = getattr(loader.batch_sampler, "sampler", None)
    return loader.sampler, loader.batch_sampler, inner


def derive_seed(*parts: object) -> int:
    """A seed in [0, 2**63) from what it depends on, the same in every process."""
    digest = blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


@contextmanager
def _seeded(seed: int, samplers: tuple[Any, ...]) -> Iterator[None]:
    """Seed all that samplers draw from, and restore it; accelerators' generators are not touched.

    Hence not `torch.manual_seed`, which seeds them as well.
    """
    found = (getattr(sampler, "generator", None) for sampler in samplers)
    generators = {g for g in found if isinstance(g, torch.Generator)} | {torch.default_generator}
    before = [(generator, generator.get_state()) for generator in generators]
    before_python, before_numpy = random.getstate(), np.random.get_state()
    try:
        for generator in generators:
            generator.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed % 2**32)
        yield
    finally:
        for generator, state in before:
            generator.set_state(state)
        random.setstate(before_python)
        np.random.set_state(before_numpy)
