"""Run a training step's forward pass beside training, without a trace in it."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn


def loss_of(module: pl.LightningModule, batch: Any) -> Tensor:
    """Loss of the module's own training step; nothing is logged, random state is as before.

    Buffers (batch statistics) and metrics that the step updates do change.
    """
    takes = inspect.signature(module.training_step).parameters
    with _silent(module), torch.random.fork_rng():
        output = module.training_step(*(batch, 0)[: len(takes)])
    loss: Tensor = output if isinstance(output, Tensor) else output["loss"]
    return loss


def gradients(
    module: pl.LightningModule, batch: Any, parameters: Sequence[nn.Parameter]
) -> list[Tensor | None]:
    """Gradients of that loss, `.grad` left alone; None where there is none."""
    active = [p for p in parameters if p.requires_grad]
    with torch.enable_grad():
        found = torch.autograd.grad(loss_of(module, batch), active, allow_unused=True)
    by_id = dict(zip(map(id, active), found, strict=True))
    return [by_id.get(id(p)) for p in parameters]


@contextmanager
def _silent(module: pl.LightningModule) -> Iterator[None]:
    """Shadow the module's log methods on the instance."""
    names = ("log", "log_dict")
    try:
        for name in names:
            module.__dict__[name] = lambda *_, **__: None
        yield
    finally:
        for name in names:
            module.__dict__.pop(name)
