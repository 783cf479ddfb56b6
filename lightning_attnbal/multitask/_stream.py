"""The endless batches of one task: a DataLoader that cycles, reshuffles and resumes."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch.utils.data import DataLoader, DistributedSampler, IterableDataset

from lightning_attnbal.core import check_integer
from lightning_attnbal.multitask._passes import Passes, derive_seed, make_passes, samplers_of


@dataclass
class _Place:
    """Where a stream stands: its pass, and how many batches of it were served."""

    seed: int
    cycle: int = 0
    position: int = 0


class TaskStream:
    """The endless batches of one task, pass after pass, resumable at every batch.

    The loader itself is never iterated. Of a map-style data set, each pass is drawn from the
    loader's own sampler or batch sampler, as lists of indices, with random numbers that depend
    on `seed`, the task and the number of the pass only (torch, numpy and Python; the global
    generators are left as they were). A second loader with the same data set, `collate_fn` and
    workers then walks over these lists. So each pass shuffles anew if the user's sampler shuffles,
    every sample of a pass is seen before the next pass begins, and continuing in the middle skips
    the indices of what was served without touching its data. `set_epoch` is called with the number
    of the pass on whatever has it.

    Workers are seeded per pass and rank. Random augmentations drawn in them are therefore the same
    in a repeated run, but not after continuing in the middle of a pass; the indices are.

    An `IterableDataset` has no indices: its passes are taken as they come, and continuing skips
    by loading and dropping. It is the same after resuming if the data set itself repeats.

    Distributed: rank r of R gets batches r, r + R, r + 2R, … of each pass, and the last ranks
    repeat some of its first batches where R does not divide the number, so that all ranks have
    equally many. A loader that brings a `DistributedSampler`, or an `IterableDataset`, is not split
    again.

    Args:
        task: its name.
        loader: where the batches come from, of one batch or more.
        seed: of all passes, an integer.
        rank: of this process among those that share the data, in [0, world_size).
        world_size: number of these processes, in [1, inf).

    Raises:
        TypeError: not a `DataLoader`, one that iterates in its own way, or one without a length.
        ValueError: the loader is empty, `rank` is out of range, or (while iterating) a pass gives
            no batch.

    Example:
        >>> from torch.utils.data import DataLoader
        >>> stream = TaskStream("tiny", DataLoader(range(3), batch_size=2))
        >>> [next(stream).tolist() for _ in range(3)]
        [[0, 1], [2], [0, 1]]
        >>> stream.length, stream.state_dict()
        (2, {'cycle': 1, 'position': 1})
    """

    def __init__(
        self,
        task: str,
        loader: DataLoader[Any],
        *,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        check_integer("world_size", world_size, low=1)
        check_integer("rank", rank, low=0, high=world_size - 1)
        num_batches = _count(task, loader)
        self._task = task
        self._world_size = 1 if _is_sharded(loader) else world_size
        self._length = -(-num_batches // self._world_size)
        self._open = partial(make_passes, loader, rank, self._world_size)
        self._place = _Place(seed)
        self._batches = _serve(self._task, self._place, self._open)

    @property
    def length(self) -> int:
        """Batches of one pass, on this rank."""
        return self._length

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        return next(self._batches)

    def close(self) -> None:
        """End the workers; the next batch, if any is asked for, starts new ones."""
        self._batches.close()
        self._batches = _serve(self._task, self._place, self._open)

    def state_dict(self) -> dict[str, int]:
        """The pass, and how many of its batches were served on all ranks together."""
        place = self._place
        return {"cycle": place.cycle, "position": place.position * self._world_size}

    def load_state_dict(self, state: Mapping[str, int], *, seed: int | None = None) -> None:
        """Continue where `state` was taken; with another number of ranks, at the next whole turn.

        Args:
            state: of a stream with the same data and batches.
            seed: of that stream; None: the same as this one's.
        """
        self.close()
        self._place.cycle = check_integer("cycle", state["cycle"], low=0)
        position = check_integer("position", state["position"], low=0)
        self._place.position = -(-position // self._world_size)
        if seed is not None:
            self._place.seed = seed


def _serve(
    task: str, place: _Place, open_passes: Callable[[], Passes]
) -> Generator[Any, None, None]:
    """The batches from a place on. What a pass needs (workers too) lives and dies with this.

    Not a method: it would keep its stream, and the workers, alive until the garbage collector runs.
    """
    passes = open_passes()
    while True:
        seed = derive_seed(place.seed, task, place.cycle)
        for batch in passes.start(place.cycle, seed, place.position):
            place.position += 1
            yield batch
        if place.position == 0:
            msg = f"Expected the loader of task {task!r} to give batches, but got none."
            raise ValueError(msg)
        place.cycle, place.position = place.cycle + 1, 0


def _count(task: str, loader: DataLoader[Any]) -> int:
    """The loader's length, of a loader that we can rebuild."""
    if not isinstance(loader, DataLoader) or type(loader).__iter__ is not DataLoader.__iter__:
        msg = (
            f"Expected the loader of task {task!r} to be a torch `DataLoader` without an "
            f"`__iter__` of its own, but got {type(loader).__name__}."
        )
        raise TypeError(msg)
    try:
        num_batches = len(loader)
    except TypeError as error:
        msg = (
            f"Expected the loader of task {task!r} to have a length, but its data set has none: "
            f"give {type(loader.dataset).__name__} a `__len__`."
        )
        raise TypeError(msg) from error
    if num_batches == 0:
        msg = f"Expected the loader of task {task!r} to have a length in [1, inf), but got 0."
        raise ValueError(msg)
    return num_batches


def _is_sharded(loader: DataLoader[Any]) -> bool:
    """Whether each rank gets data of its own without our help."""
    shards = isinstance(loader.dataset, IterableDataset)
    return shards or any(isinstance(part, DistributedSampler) for part in samplers_of(loader))
