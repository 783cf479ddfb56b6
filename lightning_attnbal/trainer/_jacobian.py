"""Aggregated gradients of several tasks in automatic optimization."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn
from typing_extensions import override

from lightning_attnbal.multitask import jacobian_backward


class JacobianBackward(pl.LightningModule):
    """A LightningModule whose backward pass settles conflicts between tasks with an aggregator.

    Set `aggregator` (see `make_aggregator`) and return `self.keep(losses, features)` from
    `training_step`. Optimization stays automatic: clipping, accumulation, schedulers, precision and
    callbacks work as always. It overrides `backward`, and only that.

    The factor that Lightning or the user put on each loss (accumulation, the scale of mixed
    precision, weights) multiplies the row of its task. With accumulation every batch is aggregated
    by itself. On one device only: gradients don't pass DDP's hooks, so other worlds are refused at
    the first backward pass. What an aggregator remembers elsewhere than in buffers (NashMTL) is not
    in a checkpoint.

    A step costs a backward pass per task through what the tasks share: beyond a plain step,
    (T − 1) · (its backward FLOPs under the plan), and about 2 · T² · (its parameters) FLOPs for the
    Gramian. See `flop_counter` to count it.

    Attributes:
        aggregator: one of TorchJD's.
        chunk_size: how many tasks are passed backward at a time; see `jacobian_backward`.

    Source:
        Quinton, Rey, "Jacobian Descent for Multi-Objective Optimization", arXiv:2406.16232; TorchJD
        itself uses manual optimization with Lightning.

    Example:
        >>> from lightning_attnbal.multitask import make_aggregator
        >>> class TwoTasks(JacobianBackward):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.trunk, self.heads = nn.Linear(4, 3), nn.Linear(3, 2)
        ...         self.aggregator = make_aggregator("upgrad", ["a", "b"])
        ...
        ...     def training_step(self, batch, batch_idx):
        ...         features = self.trunk(batch)
        ...         a, b = self.heads(features).square().mean(0)
        ...         return self.keep({"a": a, "b": b}, features)
    """

    aggregator: nn.Module
    chunk_size: int | None = 1
    _kept: tuple[tuple[Tensor, ...], tuple[Tensor, ...]] | None = None

    def keep(
        self, losses: Mapping[str, Tensor], features: Tensor | Sequence[Tensor] = ()
    ) -> Tensor:
        """The sum of the losses, to return from `training_step`; each is kept for `backward`.

        Multiply it, or weigh the losses before; nothing may be added to it.

        Args:
            losses: one scalar per task, in the order of the aggregator's tasks.
            features: the last tensor or tensors that all tasks share; none: everything is shared.
        """
        shared = (features,) if isinstance(features, Tensor) else tuple(features)
        scalars = tuple(loss.reshape(()) for loss in losses.values())
        loss = torch.stack(scalars).sum()
        self._kept = (scalars, shared) if loss.requires_grad else None
        return loss

    @override
    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """Fill `.grad` by `jacobian_backward`; the arguments for a plain one don't apply.

        Raises:
            MisconfigurationException: several processes train.
            ValueError: `loss` is not what `keep` gave, or something was added to it.
        """
        if self.trainer.world_size > 1:
            msg = (
                "Expected a single process where gradients of tasks are aggregated, but got "
                f"{self.trainer.world_size}. Use one device, or a LossBalancer."
            )
            raise MisconfigurationException(msg)
        if self._kept is None:
            msg = "Expected `training_step` to return the loss of `keep`, but it was not called."
            raise ValueError(msg)
        (losses, features), self._kept = self._kept, None
        scaled = [f * x for f, x in zip(_factors(loss, losses), losses, strict=True)]
        parameters = list(self.parameters())
        jacobian_backward(
            scaled, parameters, self.aggregator, features=features, chunk_size=self.chunk_size
        )


def _factors(loss: Tensor, losses: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """By what the loss of each task was multiplied on its way into `loss`."""
    found = torch.autograd.grad(loss, losses, allow_unused=True)
    factors = tuple(
        torch.zeros_like(x) if f is None else f for f, x in zip(found, losses, strict=True)
    )
    total = float(sum((f * x.detach()).sum() for f, x in zip(factors, losses, strict=True)))
    given = float(loss.detach())
    if math.isfinite(total) and not math.isclose(given, total, rel_tol=1e-2, abs_tol=1e-8):
        msg = (
            "Expected the loss to be that of `keep`, or a multiple of it, but something was added: "
            f"{given:.6g} instead of {total:.6g}. Make it part of a task's loss."
        )
        raise ValueError(msg)
    return factors
