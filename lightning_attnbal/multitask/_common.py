"""The streams of several tasks, of which those about the same samples have one together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch.utils.data import DataLoader, IterableDataset, StackDataset

from lightning_attnbal.multitask._stream import TaskStream


@dataclass(frozen=True, slots=True)
class _Collate:
    """Each task's own way to make a batch of samples; picklable, for workers."""

    collates: Mapping[str, Callable[[list[Any]], Any]]

    def __call__(self, samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        return {
            task: collate([sample[task] for sample in samples])
            for task, collate in self.collates.items()
        }


def stacked(loaders: Mapping[str, DataLoader[Any]]) -> DataLoader[Any]:
    """One loader of `{task: batch}` with the same samples for every task.

    Sample k of each data set is about the same thing. The first task's loader says in which order
    samples come, how many make a batch and how many workers load them; each task's own
    `collate_fn` makes its batch.

    Args:
        loaders: by task, over map-style data sets of the same size, in batches.

    Raises:
        ValueError: a data set has no indices, sizes differ, or the first loader has no batches.

    Example:
        >>> tasks = {"plain": DataLoader(range(4), 2), "squared": DataLoader([0, 1, 4, 9], 2)}
        >>> [{task: rows.tolist() for task, rows in batch.items()} for batch in stacked(tasks)]
        [{'plain': [0, 1], 'squared': [0, 1]}, {'plain': [2, 3], 'squared': [4, 9]}]
    """
    sizes = {
        task: None if isinstance(loader.dataset, IterableDataset) else len(loader.dataset)  # type: ignore[arg-type]  # map-style: sized
        for task, loader in loaders.items()
    }
    first = next(iter(loaders.values()))
    if None in sizes.values() or len(set(sizes.values())) > 1 or first.batch_sampler is None:
        msg = (
            "Expected loaders over map-style data sets of one size, in batches, where all tasks "
            f"share a step's samples, but got sizes {sizes} (None: iterable). Give each task the "
            "same rows, or let tasks take turns."
        )
        raise ValueError(msg)
    return DataLoader(
        StackDataset(**{task: loader.dataset for task, loader in loaders.items()}),
        batch_sampler=first.batch_sampler,
        collate_fn=_Collate({task: loader.collate_fn for task, loader in loaders.items()}),
        num_workers=first.num_workers,
        pin_memory=first.pin_memory,
        worker_init_fn=first.worker_init_fn,
    )


def open_streams(
    loaders: Mapping[str, DataLoader[Any]], mode: str, **settings: int
) -> dict[str, TaskStream]:
    """By task, where its batches come from; in mode "common" the same stream for all.

    Raises:
        TypeError: not a loader that `TaskStream` takes.
        ValueError: an empty loader, or what `stacked` refuses.
    """
    if mode == "common":
        return dict.fromkeys(loaders, TaskStream("common", stacked(loaders), **settings))
    return {task: TaskStream(task, loader, **settings) for task, loader in loaders.items()}


def check_tasks(name: str, given: Mapping[str, Any], tasks: Sequence[str]) -> None:
    """Refuse tasks that appeared or disappeared.

    Raises:
        ValueError: `given` lacks some or has others.
    """
    missing = [task for task in tasks if task not in given]
    unknown = [task for task in given if task not in tasks]
    if missing or unknown:
        msg = (
            f"Expected `{name}` to have the tasks {list(tasks)}, but {missing} are missing and "
            f"{unknown} are unknown."
        )
        raise ValueError(msg)
