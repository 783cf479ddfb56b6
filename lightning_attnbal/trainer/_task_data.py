"""Makes Lightning train on a `TaskLoader` where the user gives a dict of loaders."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, TypeGuard

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer
from lightning.pytorch.utilities import CombinedLoader
from torch.utils.data import DataLoader

from lightning_attnbal.multitask import TaskLoader


class TaskData:
    """The training data of a `Trainer` while `serve_tasks` is in force.

    Attributes:
        loader: what Lightning trains on, as soon as it has asked for its data; None if these were
            not the loaders of several tasks.
    """

    def __init__(self, trainer: Trainer, settings: dict[str, Any]) -> None:
        self.loader: TaskLoader | None = None
        self._trainer, self._settings = trainer, settings
        self._source = trainer.fit_loop._data_source
        self._request = self._source.dataloader
        self._source.dataloader = self._give  # type: ignore[method-assign]  # undo uncovers it

    def undo(self) -> None:
        """Give the Trainer its own data again, and end our workers; a second time does nothing."""
        vars(self._source).pop("dataloader", None)
        if self.loader is not None:
            self.loader.close()

    def _give(self) -> Any:
        """What Lightning gets when it asks for the training data."""
        data = self._request()
        loaders = data.iterables if isinstance(data, CombinedLoader) else data
        if isinstance(loaders, TaskLoader):
            self.loader = loaders
        elif _are_tasks(loaders):
            self.loader = self._make(loaders)
        else:
            _refuse_missing(loaders)
            return data
        self._resume(self.loader)
        return self.loader

    def _make(self, loaders: Mapping[str, DataLoader[Any]]) -> TaskLoader:
        """Our loader over the user's; over reloaded ones, with the shares that were set meanwhile.

        The epoch is part of the seed, so that reloaded data is shuffled anew.
        """
        settings: dict[str, Any] = {"seed": int(os.environ.get("PL_GLOBAL_SEED", "0"))}
        settings |= self._settings | _ranks(self._trainer)
        settings["seed"] += self._trainer.current_epoch
        if self.loader is not None:
            self.loader.close()
            settings |= {"shares": self.loader.shares, "first_within": None}
        loader = TaskLoader(loaders, **settings)
        limit = self._trainer.limit_train_batches
        if isinstance(limit, int) and limit < len(loader):
            loader = TaskLoader(loaders, **settings | {"num_batches": limit})
        return loader

    def _resume(self, loader: TaskLoader) -> None:
        """Load what the checkpoint has, if there is one.

        Lightning would, but not from a checkpoint of an epoch's end, where it starts the loaders
        anew; nor could it tell the loader that an epoch which was cut short is over.
        """
        loop = self._trainer.fit_loop
        states, loop._combined_loader_states_to_load = loop._combined_loader_states_to_load, []
        if not states:
            return
        loader.load_state_dict(states[0])
        epoch: Any = loop.epoch_progress.current
        if epoch.processed == epoch.ready or loop.epoch_loop.batch_progress.is_last_batch:
            loader.end_epoch()


def _refuse_missing(data: Any) -> None:
    """Refuse a dict in which only some tasks have a loader.

    Raises:
        MisconfigurationException: names those that have none.
    """
    if not isinstance(data, Mapping):
        return
    others = {task: type(x).__name__ for task, x in data.items() if not isinstance(x, DataLoader)}
    if 0 < len(others) < len(data):
        found = ", ".join(f"{name} for {task!r}" for task, name in others.items())
        msg = (
            f"Expected a DataLoader for every task of the training data, but got {found}. To leave "
            "out a task, leave out its name."
        )
        raise MisconfigurationException(msg)


def serve_tasks(trainer: Trainer, **settings: Any) -> TaskData:
    """Let Lightning train on a `TaskLoader` where the user's training data is a dict of loaders.

    To be called in a callback's `setup` (stage "fit"), and undone in its `teardown` and (Lightning
    skips that after an error) `on_exception`. The loader exists once Lightning has asked for its
    data: from `on_train_start` on, or earlier where `configure_optimizers` asks for
    `estimated_stepping_batches`. Whether the data come from a datamodule, the module or
    `fit(train_dataloaders=...)` makes no difference; a `CombinedLoader` of a dict counts as this
    dict, and its mode is dropped. A `TaskLoader` given by the user is used as it is. All else is
    left to Lightning.

    A checkpoint of any moment continues with exactly the next batch. (With `max_steps`, Lightning
    2.6 adds one batch to an epoch at whose end it resumes; the tasks' turns begin anew after it.)

    `limit_train_batches` as a number of batches is the length of the planned epoch; as a fraction
    it cuts each epoch short, where every task has had its share to within a batch. Each rank gets
    its part of every task's batches, unless `Trainer(use_distributed_sampler=False)` says that the
    user sees to this. Data that are reloaded keep the shares that were set meanwhile.

    Args:
        trainer: of a run that has not asked for its training data yet.
        settings: for `TaskLoader`: `shares`, `mode`, `num_batches`, `first_within`, `seed` (by
            default that of `seed_everything`, or 0).

    Raises:
        MisconfigurationException: `overfit_batches` is set; it repeats batches, tasks continue.

    Example:
        >>> from lightning.pytorch import Callback
        >>> class Tasks(Callback):
        ...     def setup(self, trainer, pl_module, stage):
        ...         self.data = serve_tasks(trainer, shares={"rating": 3, "class": 1})
        ...     def teardown(self, trainer, pl_module, stage):
        ...         self.data.undo()
    """
    overfit = trainer.overfit_batches  # type: ignore[attr-defined]  # set outside of its class
    if overfit > 0:
        msg = (
            f"Expected `overfit_batches` to be 0 where tasks take turns, but got {overfit}: give a "
            "smaller data set instead."
        )
        raise MisconfigurationException(msg)
    return TaskData(trainer, settings)


def _are_tasks(data: Any) -> TypeGuard[Mapping[str, DataLoader[Any]]]:
    """Whether these are loaders by task."""
    return (
        isinstance(data, Mapping)
        and bool(data)
        and all(isinstance(loader, DataLoader) for loader in data.values())
    )


def _ranks(trainer: Trainer) -> dict[str, int]:
    """Among which processes the data are divided, by Lightning's own rules."""
    shared = trainer.distributed_sampler_kwargs
    if shared is None or not trainer._accelerator_connector.use_distributed_sampler:
        return {}
    return {"rank": shared["rank"], "world_size": shared["num_replicas"]}
