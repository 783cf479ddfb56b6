"""Affinity of tasks that share a batch, from TorchJD's Gramian of their gradients."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor


class GramianEngine(Protocol):
    """What is used of `torchjd.autogram.Engine`."""

    def compute_gramian(self, output: Tensor, /) -> Tensor:
        """Inner products of the gradients of a vector of losses, shape (T, T)."""


def gramian_affinity(engine: GramianEngine, losses: Mapping[str, Tensor]) -> Tensor:
    """Cosines between the gradients of all tasks on one batch, as a comparison for `AffinityMeter`.

    C_ik = ⟨g_i, g_k⟩ / (‖g_i‖ ‖g_k‖) over the parameters of the engine's modules; in [−1, 1], NaN
    where a gradient is 0. Where the tasks share samples their noise meets itself: the norms are too
    large, and the inner products wrong by whatever the noise of the tasks has in common. Costs
    about a backward pass per task through the engine's modules.

    Args:
        engine: `torchjd.autogram.Engine(*shared_modules, batch_dim=None)`, made before the forward
            pass that gave the losses. Keeps the graph, so `backward` may follow.
        losses: one scalar per task.

    Returns:
        C, shape (T, T), in the order of `losses`.

    Source:
        Quinton, Rey, "Jacobian Descent for Multi-Objective Optimization", arXiv:2406.16232,
        section 6, as implemented in TorchJD 0.18.

    Example:
        >>> class Recorded:  # stands in for torchjd.autogram.Engine
        ...     def compute_gramian(self, output):
        ...         return torch.tensor([[4.0, -2.0], [-2.0, 4.0]])
        >>> gramian_affinity(Recorded(), {"a": torch.tensor(1.0), "b": torch.tensor(2.0)}).tolist()
        [[1.0, -0.5], [-0.5, 1.0]]
    """
    gramian = engine.compute_gramian(torch.stack([loss.reshape(()) for loss in losses.values()]))
    norms = gramian.diagonal().sqrt()
    return (gramian / norms / norms[:, None]).detach()
