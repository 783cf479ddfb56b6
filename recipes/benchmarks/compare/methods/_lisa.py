"""LISA: embeddings and head always train, and a few blocks drawn anew every few steps."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import lightning.pytorch as pl
from typing_extensions import override

from lightning_attnbal.core import check_integer
from recipes.benchmarks.compare.counted import CountedBudget
from recipes.benchmarks.compare.methods._method import (
    Method,
    UnitTrainer,
    blocks_of,
    has_trainable,
    names_of,
    own_generator,
)


@dataclass(frozen=True, kw_only=True)
class LISA(Method):
    """Trains everything that is no block, and `num_blocks` blocks drawn every `period` steps.

    Args:
        num_blocks: γ, in [1, inf); all of them where the model has fewer.
        period: K, optimizer steps between draws, in [1, inf).

    Source:
        Pan et al., "LISA: Layerwise Importance Sampling for Memory-Efficient Large Language Model
        Fine-Tuning", NeurIPS 2024, algorithm 1 with the uniform draw they use.
    """

    num_blocks: int = 2
    period: int = 20

    def __post_init__(self) -> None:
        check_integer("num_blocks", self.num_blocks, low=1)
        check_integer("period", self.period, low=1)

    @property
    @override
    def name(self) -> str:
        return f"lisa-{self.num_blocks}-every-{self.period}"

    @override
    def _callbacks(self, budget: CountedBudget) -> list[pl.Callback]:
        return [_RandomBlocks(budget, self)]


class _RandomBlocks(UnitTrainer):
    """Draws the blocks; those the user froze are not drawn."""

    def __init__(self, budget: CountedBudget, method: LISA) -> None:
        super().__init__(budget)
        self._method = method
        self._blocks: list[str] = []
        self._generator = own_generator("lisa")

    @override
    def prepare_units(self, pl_module: pl.LightningModule) -> None:
        self._generator = own_generator("lisa")
        self._blocks = [u.name for u in blocks_of(self.units) if has_trainable(pl_module, u)]

    @override
    def first_units(self) -> Collection[str]:
        others = names_of(self.units) - names_of(blocks_of(self.units))
        count = min(self._method.num_blocks, len(self._blocks))
        return others.union(self._generator.sample(self._blocks, count))

    @override
    def before_batch(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any) -> None:
        steps = self.budget.num_steps
        if steps and steps % self._method.period == 0:
            self.train(self.first_units())
