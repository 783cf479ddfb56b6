"""What a baseline is, and what those that freeze whole units share."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import lightning.pytorch as pl
import torch
from typing_extensions import override

from lightning_attnbal.apply import PlanApplier
from lightning_attnbal.core import FROZEN, FULL, Plan, Unit, UnitKind
from lightning_attnbal.measure import discover_units
from recipes.benchmarks.compare.counted import CountedBudget


@dataclass(frozen=True, kw_only=True)
class Method(ABC):
    """A published way to train, on an unchanged LightningModule.

    Use: `method.prepare(module)`, then `Trainer(callbacks=method.callbacks(budget))`, and nothing
    else that sets learning rates or trainability. Works on one device with automatic optimization
    and one optimizer. What a user froze before `prepare` is never trained. Whatever a method draws
    follows the seed of the run and leaves the global random state alone.

    Raises:
        ValueError: a setting is out of its range, at construction.
    """

    @property
    @abstractmethod
    def name(self) -> str:
        """Short, with the settings that tell it from its siblings."""

    @property
    def default_lr_factor(self) -> float:
        """Where to look for its learning rate, relative to that of full training."""
        return 1.0

    def prepare(self, module: pl.LightningModule) -> None:  # noqa: B027 (most have nothing to do)
        """Change a fresh model, before its optimizer exists."""

    def callbacks(self, budget: CountedBudget) -> list[pl.Callback]:
        """Everything for the Trainer, the budget included, in the order it has to have."""
        return [_StartClock(budget), *self._callbacks(budget), budget]

    def _callbacks(self, budget: CountedBudget) -> list[pl.Callback]:  # noqa: ARG002
        """What acts before the budget looks at a batch."""
        return []


class _StartClock(pl.Callback):
    """Starts the clock of each batch, before any method acts on it.

    Hooks: `on_train_batch_start`.
    """

    def __init__(self, budget: CountedBudget) -> None:
        self._budget = budget

    @override
    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._budget.clock.start(self._budget.spent)


class UnitTrainer(pl.Callback, ABC):
    """Trains some units and freezes the others; a subclass says which, and when that changes.

    Frozen units run in eval mode (no dropout, fixed batch statistics), as ours do.

    Hooks: `on_train_start`, `on_train_epoch_start`, `on_train_batch_start`, `on_exception`,
    `teardown`.

    Args:
        budget: of the run.

    Attributes:
        units: of the model, forward order, from the start of training.
        trained: names of the units that train now.
    """

    def __init__(self, budget: CountedBudget) -> None:
        self.budget = budget
        self.units: tuple[Unit, ...] = ()
        self.trained: frozenset[str] = frozenset()
        self._applier: PlanApplier | None = None

    def prepare_units(self, pl_module: pl.LightningModule) -> None:
        """Look at the units of the model before anything is frozen."""

    @abstractmethod
    def first_units(self) -> Collection[str]:
        """What trains at first."""

    def before_batch(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any) -> None:
        """Change what trains, if it is time to."""

    def train(self, names: Collection[str]) -> None:
        """Train exactly these units from now on."""
        assert self._applier is not None
        self.trained = frozenset(names)
        levels = {unit.name: FULL if unit.name in self.trained else FROZEN for unit in self.units}
        self._applier.apply(Plan(levels))

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.units = discover_units(pl_module)
        self.prepare_units(pl_module)
        self._applier = PlanApplier(pl_module, self.units)
        self.train(self.first_units())

    @override
    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._applier is not None:
            self._applier.refresh()

    @override
    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self.before_batch(trainer, pl_module, batch)

    @override
    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        self._undo()

    @override
    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self._undo()

    def _undo(self) -> None:
        if self._applier is not None:
            self._applier.undo()
            self._applier = None


def blocks_of(units: Collection[Unit]) -> list[Unit]:
    """The repeated blocks, forward order."""
    return [unit for unit in units if unit.kind is UnitKind.BLOCK]


def heads_of(units: Collection[Unit]) -> list[Unit]:
    """The head; the last unit where none is known as such."""
    heads = [unit for unit in units if unit.kind is UnitKind.HEAD]
    return heads or list(units)[-1:]


def names_of(units: Collection[Unit]) -> frozenset[str]:
    """Names of units."""
    return frozenset(unit.name for unit in units)


def has_trainable(module: pl.LightningModule, unit: Unit) -> bool:
    """Whether the user left something of the unit trainable; to be asked before anything froze."""
    parameters = dict(module.named_parameters(remove_duplicate=False))
    return any(parameters[name].requires_grad for name in unit.parameters)


def own_generator(salt: str) -> random.Random:
    """Random numbers that follow the run's seed and are nobody else's."""
    return random.Random(f"{salt}{torch.initial_seed()}")
