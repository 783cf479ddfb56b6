"""Tasks on several ranks: what ranks tell one another, and what cannot be run so."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import torch.distributed as dist
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.strategies import DDPStrategy, Strategy

from lightning_attnbal.core import Budget, Dimension
from lightning_attnbal.multitask import TaskLoader

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Ranks:
    """The processes among which a step's tasks are dealt; one by itself asks nobody.

    Args:
        size: number of them, in [1, inf).

    Example:
        >>> Ranks().gather("mine"), Ranks().agree("mine")
        (['mine'], 'mine')
    """

    size: int = 1

    def gather(self, mine: T) -> list[T]:
        """What every rank has, by rank; all ranks have to ask."""
        if self.size == 1:
            return [mine]
        found: list[T] = [mine] * self.size
        dist.all_gather_object(found, mine)
        return found

    def agree(self, mine: T) -> T:
        """What rank 0 has; all ranks have to ask."""
        if self.size == 1:
            return mine
        found = [mine]
        dist.broadcast_object_list(found, src=0)
        return found[0]


def refuse_ranks(trainer: Trainer, budget: Budget, probes: float) -> None:
    """Refuse what tasks on several ranks cannot be run with.

    Raises:
        MisconfigurationException: names the setting, what was found and the remedy.
    """
    module = trainer.lightning_module
    needed = "with tasks on several ranks (`parallel='ranks'`)"
    for applies, message in (
        (
            not _finds_unused(trainer.strategy) or trainer.world_size < 2,
            f"Expected DDP that finds unused parameters, on two or more processes, {needed}, but "
            f"got {type(trainer.strategy).__name__} with {trainer.world_size}: ranks train "
            "different heads and layers in the same step. Use "
            '`Trainer(strategy="ddp_find_unused_parameters_true", devices=2)` or more, or '
            "`parallel='off'`.",
        ),
        (
            trainer.accumulate_grad_batches > 1,
            f"Expected `accumulate_grad_batches` to be 1 {needed}, but got "
            f"{trainer.accumulate_grad_batches}: a step has a batch of each rank already.",
        ),
        (
            budget.dimension is Dimension.SECOND,
            f"Expected a budget in FLOPs or of the full run {needed}, but got {budget}: each rank "
            "has a clock of its own, and they would decide differently.",
        ),
        (
            probes > 0,
            f"Expected `probes` to be 0 {needed}, but got {probes:g}: each rank would measure its "
            "own batches.",
        ),
        (
            type(module).backward is not LightningModule.backward,
            f"Expected a module without a `backward` of its own {needed}, but got "
            f"{type(module).__name__}: its gradients would not pass DDP's hooks.",
        ),
    ):
        if applies:
            raise MisconfigurationException(message)


def refuse_uneven(loader: TaskLoader, ranks: Ranks) -> None:
    """Refuse data that are not the same size on all ranks.

    Raises:
        MisconfigurationException: ranks have different numbers of batches of a task.
    """
    lengths = ranks.gather(loader.lengths)
    if any(other != lengths[0] for other in lengths):
        msg = (
            f"Expected every rank to have as many batches of each task as the others, but got "
            f"{lengths}. Give each rank the whole data and let the Trainer divide them."
        )
        raise MisconfigurationException(msg)


def _finds_unused(strategy: Strategy) -> bool:
    """Whether this is DDP that copes with parameters that a rank did not use."""
    settings = getattr(strategy, "_ddp_kwargs", {})
    is_static = settings.get("static_graph", False)
    finds = settings.get("find_unused_parameters", False)
    return isinstance(strategy, DDPStrategy) and finds and not is_static
