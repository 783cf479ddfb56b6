"""One loss from the losses of all tasks, by TorchJD's scalarizers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import override

from lightning_attnbal.core import check_choice

SCALARIZERS = {
    "constant": "Constant",
    "cosmos": "COSMOS",
    "dwa": "DWA",
    "famo": "FAMO",
    "geometric_mean": "GeometricMean",
    "imtl_l": "IMTLL",
    "mean": "Mean",
    "pbi": "PBI",
    "random": "Random",
    "stch": "STCH",
    "sum": "Sum",
    "uw": "UW",
}
"""The methods of `LossBalancer`, and TorchJD's class for each."""


class LossBalancer(nn.Module):
    """Weighs the losses of all tasks on one step into one; costs one backward pass.

    | method | loss | settings |
    |---|---|---|
    | sum, mean | Σ L_k, Σ L_k / T | |
    | constant | Σ w_k L_k | weights |
    | random | Σ w_k L_k, w drawn anew per call, positive, sum 1 | |
    | geometric_mean | (Π L_k)^(1/T), L_k ≥ 0 | |
    | uw | Σ ½ e^(−s_k) L_k + ½ s_k, s learned | |
    | imtl_l | Σ e^(s_k) L_k − s_k, s learned | |
    | dwa | Σ w_k L_k, w_k larger the slower L_k fell over two epochs | temperature |
    | famo | c Σ z_k ln(L_k − b_k), z lets all fall alike | min_losses, lr, weight_decay |
    | stch | μ ln Σ e^(w_k (L_k − z_k) / μ), a smooth maximum | mu, weights, reference |
    | pbi | distance along the direction w + θ · distance from it | theta, weights, reference |
    | cosmos | Σ w_k L_k − λ cos(w, L) | lambda_, weights |

    Make it an attribute of the LightningModule before `configure_optimizers`: "uw" and "imtl_l"
    have parameters that the optimizer must hold. "famo" wants `update` after each step, "dwa"
    `end_epoch` after each epoch; for the other methods both do nothing, so a module may call them
    whatever the method. In evaluation mode nothing is remembered.

    State (`state_dict`): what is learned or remembered, also FAMO's Adam and DWA's averages. Each
    rank keeps its own; only learned parameters are synchronised, by their gradients.

    Args:
        method: see the table.
        tasks: their names, in any order, which stays.
        **settings: as in the table; what has one value per task is a mapping from task to number.

    Raises:
        ValueError: an unknown method, setting or task, or one that is missing.
        ModuleNotFoundError: TorchJD is not installed.

    Source:
        TorchJD 0.18, which names the paper of each method: Kendall et al. (CVPR 2018) for uw, Liu
        et al. (ICLR 2021) for imtl_l, Liu et al. (CVPR 2019) for dwa, Liu et al. (NeurIPS 2023) for
        famo, Lin et al. (TMLR 2022) for random, Lin et al. (ICML 2024) for stch.

    Example:
        >>> balance = LossBalancer("constant", ["a", "b"], weights={"a": 1.0, "b": 0.5})
        >>> balance({"b": torch.tensor(4.0), "a": torch.tensor(1.0)})
        tensor(3.)
    """

    def __init__(self, method: str, tasks: Sequence[str], **settings: Any) -> None:
        super().__init__()
        self.method = check_choice("method", method, SCALARIZERS)
        self.tasks = tuple(tasks)
        adapter = torchjd_adapter()
        self.scalarizer: Any = adapter.make_scalarizer(SCALARIZERS[method], tasks, settings)

    @property
    def needs_update(self) -> bool:
        """Whether the method wants the losses after the step (an extra forward pass)."""
        return self.method == "famo"

    @override
    def forward(self, losses: Mapping[str, Tensor]) -> Tensor:
        """One scalar loss from one scalar per task.

        Raises:
            ValueError: the tasks are not those of the balancer, or a loss is no scalar.
        """
        loss: Tensor = self.scalarizer(self._values(losses))
        return loss

    def update(self, losses: Mapping[str, Tensor]) -> None:
        """After an optimizer step: its batch's losses, computed anew, for a method that wants them.

        With accumulation, the last batch of the step.

        Raises:
            ValueError: as for a call; or the balancer was not called before the step.
        """
        if self.needs_update:
            self.scalarizer.update(self._values(losses))

    def end_epoch(self) -> None:
        """After an epoch of training: "dwa" takes its losses as the past."""
        if self.method == "dwa":
            self.scalarizer.step()

    def _values(self, losses: Mapping[str, Tensor]) -> Tensor:
        if losses.keys() != set(self.tasks):
            msg = f"Expected `losses` of the tasks {list(self.tasks)}, but got {list(losses)}."
            raise ValueError(msg)
        shapes = {task: tuple(loss.shape) for task, loss in losses.items() if loss.numel() != 1}
        if shapes:
            msg = f"Expected `losses` to be scalars, but got the shapes {shapes}."
            raise ValueError(msg)
        return torch.stack([losses[task].reshape(()) for task in self.tasks])


def torchjd_adapter() -> ModuleType:
    """The module that imports TorchJD.

    Raises:
        ModuleNotFoundError: TorchJD is not installed.
    """
    if find_spec("torchjd") is None:
        msg = "Balancing losses or gradients needs TorchJD: pip install 'lightning-attnbal[mtl]'."
        raise ModuleNotFoundError(msg, name="torchjd")
    return import_module("lightning_attnbal.multitask._torchjd")
