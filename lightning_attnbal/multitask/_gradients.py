"""One gradient from the gradients of all tasks, by TorchJD's aggregators."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor, nn

from lightning_attnbal.core import check_choice
from lightning_attnbal.multitask._balancing import torchjd_adapter

AGGREGATORS = {
    "aligned_mtl": "AlignedMTL",
    "cagrad": "CAGrad",
    "config": "ConFIG",
    "constant": "Constant",
    "dualproj": "DualProj",
    "excess_mtl": "ExcessMTL",
    "fairgrad": "FairGrad",
    "graddrop": "GradDrop",
    "gradvac": "GradVac",
    "imtl_g": "IMTLG",
    "krum": "Krum",
    "mean": "Mean",
    "mgda": "MGDA",
    "nash_mtl": "NashMTL",
    "pcd": "PCD",
    "pcgrad": "PCGrad",
    "random": "Random",
    "sum": "Sum",
    "trimmed_mean": "TrimmedMean",
    "upgrad": "UPGrad",
}
"""The methods of `make_aggregator`, and TorchJD's class for each."""


def make_aggregator(method: str, tasks: Sequence[str], **settings: Any) -> nn.Module:
    """An aggregator of TorchJD by name: makes one gradient of a Jacobian with a row per task.

    "upgrad" and "dualproj" project with SciPy instead of quadprog, and so need no further package.
    "cagrad" and "nash_mtl" do: pip install 'lightning-attnbal[mtl-solvers]'.

    Args:
        method: such as "upgrad", "cagrad", "pcgrad", "mgda", "nash_mtl".
        tasks: their names, in the order of the Jacobian's rows.
        **settings: of TorchJD's class, such as `c` of "cagrad"; what has one value per task
            (`pref_vector`) is a mapping from task to number.

    Raises:
        ValueError: an unknown method or setting, or one that is missing.
        ModuleNotFoundError: TorchJD is not installed.
        ImportError: the method needs a further package.

    Source:
        TorchJD 0.18, which names the paper of each method; Quinton, Rey, "Jacobian Descent for
        Multi-Objective Optimization", arXiv:2406.16232, for upgrad.

    Example:
        >>> import torch
        >>> aggregator = make_aggregator("upgrad", ["a", "b"])
        >>> aggregator(torch.tensor([[-4.0, 1.0, 1.0], [6.0, 1.0, 1.0]]))
        tensor([0.2929, 1.9004, 1.9004])
    """
    check_choice("method", method, AGGREGATORS)
    made: nn.Module = torchjd_adapter().make_aggregator(AGGREGATORS[method], tasks, settings)
    return made


def jacobian_backward(
    losses: Sequence[Tensor],
    parameters: Iterable[nn.Parameter],
    aggregator: nn.Module,
    *,
    features: Sequence[Tensor] = (),
    chunk_size: int | None = 1,
) -> None:
    """Backward of all tasks at once, conflicts settled by `aggregator`; adds to `.grad`.

    What the tasks share gets the aggregated gradient, what only one task uses its plain one. Costs
    a backward pass per task through the shared part, and memory for T gradients of it.

    Args:
        losses: one scalar per task, in the order of the aggregator's rows.
        parameters: of the model, in their usual order.
        aggregator: of `make_aggregator`, or any of TorchJD's.
        features: the last tensors that all tasks share. Without them every parameter counts as
            shared, and all of the graph is passed once per task. If none of them requires a
            gradient, the shared part is frozen and this is a plain backward pass.
        chunk_size: how many tasks are passed at a time, None for all. More is faster on a GPU but
            runs under `torch.vmap`, which knows neither compiled models nor all hooks, hence 1.

    Raises:
        ModuleNotFoundError: TorchJD is not installed.

    Source:
        `mtl_backward`, `backward` and `jac_to_grad` of TorchJD 0.18.

    Example:
        >>> import torch
        >>> weight = nn.Parameter(torch.tensor([1.0, 1.0]))
        >>> losses = [torch.tensor(row) @ weight for row in ([-4.0, 1.0], [6.0, 1.0])]
        >>> jacobian_backward(losses, [weight], make_aggregator("mean", ["a", "b"]))
        >>> weight.grad
        tensor([1., 1.])
    """
    backward = torchjd_adapter().jacobian_backward
    backward(losses, parameters, aggregator, features, chunk_size)
