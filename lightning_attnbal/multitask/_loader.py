"""Serves several tasks' loaders in planned shares."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any, Literal

from torch.utils.data import DataLoader

from lightning_attnbal.core import check_choice, check_integer
from lightning_attnbal.multitask._common import check_tasks, open_streams
from lightning_attnbal.multitask._order import apportion, deal, interleave, introduced


class TaskLoader:
    """Batches of several tasks in planned shares, as `{task: batch}`.

    In mode "one" each step is a batch of one task. The shares are rounded to whole batches of the
    epoch (`apportion`), which then take turns without long runs (`interleave`). In mode "ranks"
    each rank has one task per step, another one maybe than the other ranks: the shares are those of
    all ranks' batches together, and `deal` says who gets which. In mode "all" each step has a batch
    of every task; in mode "common" sample k of each
    task is about the same thing: they have common samples. Small tasks
    cycle, and reshuffle at each cycle; a large task that got less than one pass goes on in the next
    epoch where it stopped (see `TaskStream`).

    An epoch begins with its first batch, not with `iter`: shares set until then count. Iterate one
    epoch at a time; starting the next gives up what was left of the last.

    `state_dict` and `load_state_dict` are what Lightning saves and loads with a checkpoint: after
    loading, the next iteration continues with exactly the batch that would have come next, of the
    same indices, given the same data and batch sizes. The number of ranks may change between
    epochs, but not within one (its length does). In mode "ranks" what is saved is one rank's place:
    another rank may repeat or miss a batch of a task there.

    Shares, lengths and seed alone decide the order of tasks, so it is the same on every rank as
    long as these are.

    Args:
        loaders: by task; their order decides ties.
        shares: of the epoch's batches by task, each in [0, inf), not all 0, in any scale. None:
            proportional to the loaders' lengths. Modes "all" and "common" have none.
        mode: "one" task in each step, one on each of the "ranks", "all", or all with "common"
            samples.
        num_batches: steps of an epoch, in [1, inf). None: one pass over all tasks together (modes
            "one" and "ranks") or over the longest.
        seed: of all shuffling.
        rank: of this process among those that share the data, in [0, world_size).
        world_size: number of these processes, in [1, inf).
        first_within: the first epoch begins such that each task with a share has had a batch after
            so many steps per task, in [1, inf), and one of the epoch's at all (if it is long
            enough), so that all can soon be looked at. None: turns and shares as ever.

    Raises:
        TypeError: not a mapping of loaders that `TaskStream` takes.
        ValueError: no task, an empty loader, shares of unknown or missing tasks, shares that are
            negative or all 0, shares in a mode without, data sets of different size in mode
            "common", or a saved state of other tasks.

    Example:
        >>> from torch.utils.data import DataLoader
        >>> loaders = {"big": DataLoader(range(8), 2), "small": DataLoader(range(90, 92), 2)}
        >>> loader = TaskLoader(loaders, shares={"big": 0.6, "small": 0.4})
        >>> loader.planned, len(loader)
        ({'big': 3, 'small': 2}, 5)
        >>> [{task: rows.tolist() for task, rows in step.items()} for step in loader]
        [{'big': [0, 1]}, {'small': [90, 91]}, {'big': [2, 3]}, {'small': [90, 91]},
         {'big': [4, 5]}]
        >>> loader.set_shares({"big": 1, "small": 0})
        >>> [rows.tolist() for step in loader for rows in step.values()]
        [[6, 7], [0, 1], [2, 3], [4, 5], [6, 7]]
    """

    def __init__(
        self,
        loaders: Mapping[str, DataLoader[Any]],
        *,
        shares: Mapping[str, float] | None = None,
        mode: Literal["one", "ranks", "all", "common"] = "one",
        num_batches: int | None = None,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        first_within: int | None = None,
    ) -> None:
        if not loaders:
            msg = "Expected `loaders` to have a loader for each task, but got none."
            raise ValueError(msg)
        self._mode = check_choice("mode", mode, ("one", "ranks", "all", "common"))
        self._seed = check_integer("seed", seed, low=0)
        self._rank, self._num_ranks = rank, world_size if mode == "ranks" else 1
        self._streams = open_streams(loaders, mode, seed=seed, rank=rank, world_size=world_size)
        has_shares = mode in {"one", "ranks"}
        if num_batches is None:
            num_batches = (sum if has_shares else max)(self.lengths.values())
        self._num_batches = check_integer("num_batches", num_batches, low=1)
        if first_within is not None:
            check_integer("first_within", first_within, low=1)
        self._first_within, self._is_first = first_within, True
        self._shares: dict[str, float] | None = dict(self.lengths) if has_shares else None
        self._continues = False
        self._begin(self._shares)
        if shares is not None:
            self.set_shares(shares)

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names, in the order of `loaders`."""
        return tuple(self._streams)

    @property
    def mode(self) -> str:
        """How tasks are served: "one", "ranks", "all" or "common"."""
        return self._mode

    @property
    def lengths(self) -> dict[str, int]:
        """By task, the batches of one pass over its data, on this rank."""
        return {task: stream.length for task, stream in self._streams.items()}

    @property
    def data_shares(self) -> dict[str, float]:
        """By task, its share of the batches of one pass over the data of all tasks."""
        lengths = self.lengths
        return {task: length / sum(lengths.values()) for task, length in lengths.items()}

    @property
    def shares(self) -> dict[str, float] | None:
        """Of the next epoch's batches by task, in the scale they were given in; None without."""
        return None if self._shares is None else dict(self._shares)

    @property
    def order(self) -> tuple[tuple[str, ...], ...]:
        """The tasks of each step of this epoch; between two epochs, of the one that ended.

        In mode "ranks", that of each rank.
        """
        return self._order

    @property
    def turn(self) -> tuple[str, ...]:
        """The tasks of the step that was served last; none before an epoch's first."""
        return self._order[self._position - 1] if self._position else ()

    def coming(self, steps: int = 1) -> tuple[str, ...]:
        """The tasks of the next `steps` steps; fewer at an epoch's end."""
        return tuple(chain.from_iterable(self._order[self._position : self._position + steps]))

    @property
    def planned(self) -> dict[str, int]:
        """By task, the batches of this epoch; between two epochs, of the one that ended.

        In mode "ranks", of all ranks.
        """
        return self._count(len(self._order))

    @property
    def served(self) -> dict[str, int]:
        """By task, the batches of this epoch that were served so far; in "ranks", of all ranks."""
        return self._count(self._position)

    def __len__(self) -> int:
        return self._num_batches

    def __iter__(self) -> Iterator[dict[str, Any]]:
        if not self._continues:
            self._is_first = self._is_first and self._position == 0
            self._begin(self._shares)
        self._continues = False
        while self._position < len(self._order):
            batch = self._serve(self._order[self._position])
            self._position += 1  # before it is used: a state taken meanwhile continues after it
            yield batch

    def _serve(self, tasks: tuple[str, ...]) -> dict[str, Any]:
        """This rank's batch of a step."""
        if self._mode == "common":
            common: dict[str, Any] = next(self._streams[tasks[0]])
            return common
        if self._mode == "ranks":
            tasks = (tasks[self._rank],)
        return {task: next(self._streams[task]) for task in tasks}

    def set_shares(self, shares: Mapping[str, float]) -> None:
        """Plan later epochs with other shares (this one too, while it has served nothing).

        Args:
            shares: by task, for every task, each in [0, inf), not all 0, in any scale.

        Raises:
            ValueError: a task is unknown or missing, a share is negative, all are 0, or the mode
                has no shares.
        """
        if self._shares is None:
            msg = f"Expected `shares` to be None in mode {self._mode!r}, but got {dict(shares)}."
            raise ValueError(msg)
        check_tasks("shares", shares, self.tasks)
        apportion(shares, 0)  # refuses what are no shares, now and not when the epoch begins
        self._shares = dict(shares)
        if self._position == 0:
            self._begin(self._shares)

    def end_epoch(self) -> None:
        """Give up what is left of a loaded epoch: the next iteration begins a new one."""
        self._continues = False

    def close(self) -> None:
        """End all workers; the next batch, if any is asked for, starts new ones."""
        for stream in self._streams.values():
            stream.close()

    def state_dict(self) -> dict[str, Any]:
        """Where this epoch and each task's pass stand; numbers, names and dicts only."""
        return {
            "mode": self._mode,
            "num_batches": self._num_batches,
            "seed": self._seed,
            "shares": self.shares,
            "planned": self.planned,
            "position": self._position,
            "is_first": self._is_first,
            "streams": {task: stream.state_dict() for task, stream in self._streams.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where `state` was taken; its seed and its shares count.

        Raises:
            ValueError: it has other tasks or another mode, or was taken within an epoch of another
                length.
        """
        check_tasks("state", state.get("streams", {}), self.tasks)
        check_choice("mode", state["mode"], (self._mode,))
        position, total = state["position"], state["num_batches"]
        if 0 < position < total != self._num_batches:
            msg = (
                f"Expected a state taken within an epoch of {self._num_batches} batches, but got "
                f"one of {total}: resume with the same data, batch sizes, limits and ranks, or "
                "from the end of an epoch."
            )
            raise ValueError(msg)
        self._seed, self._shares = state["seed"], state["shares"]
        for task, stream in self._streams.items():
            stream.load_state_dict(state["streams"][task], seed=self._seed)
        self._is_first = state["is_first"]
        self._begin(None if self._shares is None else state["planned"])
        self._continues = 0 < position < total
        self._position = position if position < total else self._num_batches

    def _begin(self, shares: Mapping[str, float] | None) -> None:
        """Plan an epoch."""
        self._position = 0
        if shares is None:
            self._order = (self.tasks,) * self._num_batches
        else:
            first_within = self._first_within if self._is_first else None
            num_turns = self._num_batches * self._num_ranks
            counts = apportion(shares, num_turns, leaves_none_out=first_within is not None)
            order = interleave(counts)
            if first_within is not None:
                order = introduced(order, first_within * len(counts))
            self._order = deal(order, self._num_ranks)

    def _count(self, num: int) -> dict[str, int]:
        """By task, its batches among the first `num` steps."""
        found = Counter(chain.from_iterable(self._order[:num]))
        return {task: found[task] for task in self._streams}
