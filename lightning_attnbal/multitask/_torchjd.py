"""The one file that imports TorchJD 0.18: its classes, made to live and resume in a module."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from inspect import Parameter, signature
from typing import Any, ClassVar

import numpy as np
import torch
from scipy.optimize import nnls
from torch import Tensor, nn
from torch.optim import Adam
from torchjd import aggregation, scalarization
from torchjd.autojac import backward, jac_to_grad, mtl_backward
from torchjd.linalg import DualConeProjector, PSDMatrix
from typing_extensions import override

from lightning_attnbal.core import check_choice

_COUNTS = ("shape", "n_tasks")
"""What TorchJD calls the number of tasks."""


class _Remembering(nn.Module):
    """Saves what the scalarizer behind it remembers; evaluating leaves that as it was."""

    MEMORY: ClassVar[tuple[str, ...]]

    @override
    def forward(self, values: Tensor, /) -> Tensor:
        memory = {name: _moved(getattr(self, name), values.device) for name in self.MEMORY}
        self._remember(memory)
        loss: Tensor = super().forward(values)
        if not self.training:
            self._remember(memory)
        return loss

    def _remember(self, memory: Mapping[str, Any]) -> None:
        for name in self.MEMORY:
            setattr(self, name, memory[name])

    @override
    def get_extra_state(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.MEMORY}

    @override
    def set_extra_state(self, state: Mapping[str, Any]) -> None:
        self._remember(state)


class ResumableDWA(_Remembering, scalarization.DWA):
    """DWA whose averages over epochs are in `state_dict`."""

    MEMORY = ("_loss_sum", "_n_batches", "_previous_averages")


class ResumableFAMO(_Remembering, scalarization.FAMO):
    """FAMO whose Adam is in `state_dict`, and whose logits nobody else takes for trainable."""

    MEMORY = ("_prev_losses",)

    @override
    def register_parameter(self, name: str, param: nn.Parameter | None) -> None:
        assert param is not None
        param.requires_grad_(False)  # else DDP waits for a gradient of the logits
        super().register_parameter(name, param)

    @override
    def update(self, values: Tensor, /) -> None:
        self._w.requires_grad_(True)
        try:
            super().update(values)
        finally:
            self._w.requires_grad_(False)

    @override
    def get_extra_state(self) -> dict[str, Any]:
        adam = self._optimizer.state_dict() if self._optimizer else None
        return {**super().get_extra_state(), "adam": adam}

    @override
    def set_extra_state(self, state: Mapping[str, Any]) -> None:
        super().set_extra_state(state)
        self._optimizer = None
        if state["adam"] is not None:
            self._optimizer = Adam([self._w], lr=self.lr, weight_decay=self.weight_decay)
            self._optimizer.load_state_dict(state["adam"])


class NonNegativeProjector(DualConeProjector):
    """min over v ≥ u of vᵀGv by SciPy's non-negative least squares; needs no package of its own.

    With G = LLᵀ and v = u + s it is min over s ≥ 0 of ‖Lᵀs + Lᵀu‖. G is scaled to trace 1 and
    `ridge` added to its diagonal, as TorchJD's projector does; which also takes G for 0 where the
    trace is below 1e-4, so that it averages small gradients whatever their conflicts. This doesn't.
    """

    def __init__(self, ridge: float = 1e-4) -> None:
        self.ridge = ridge

    @override
    def __call__(self, U: Tensor, G: PSDMatrix) -> Tensor:
        gramian, weights = (x.detach().cpu().double().numpy() for x in (G, U))
        trace = gramian.trace()
        if not trace > 0:
            return U
        scaled = gramian / trace + self.ridge * np.eye(len(gramian))
        root = np.linalg.cholesky(scaled).T
        found = [u + nnls(root, -root @ u)[0] for u in weights.reshape(-1, len(gramian))]
        return torch.as_tensor(np.array(found), dtype=G.dtype, device=G.device).reshape(U.shape)


_OWN: dict[str, type[nn.Module]] = {"DWA": ResumableDWA, "FAMO": ResumableFAMO}


def make_scalarizer(name: str, tasks: Sequence[str], settings: Mapping[str, Any]) -> nn.Module:
    """A scalarizer by the name of its class."""
    kind: type[nn.Module] = _OWN.get(name) or getattr(scalarization, name)
    return _make(kind, tasks, settings)


def make_aggregator(name: str, tasks: Sequence[str], settings: Mapping[str, Any]) -> nn.Module:
    """An aggregator by the name of its class; one that projects does so with SciPy."""
    kind: type[nn.Module] = getattr(aggregation, name)
    if "projector" in signature(kind).parameters:
        settings = {"projector": NonNegativeProjector(), **settings}
    return _make(kind, tasks, settings)


def _make(kind: type[nn.Module], tasks: Sequence[str], settings: Mapping[str, Any]) -> nn.Module:
    known = signature(kind).parameters
    counts = {name: len(tasks) for name in _COUNTS if name in known}
    for name in settings:
        check_choice("settings", name, [n for n in known if n not in counts])
    given = {name: _per_task(name, value, tasks) for name, value in settings.items()} | counts
    missing = [n for n, p in known.items() if p.default is Parameter.empty and n not in given]
    if missing:
        msg = f"Expected `settings` of {kind.__name__} to have {missing}, but got {list(settings)}."
        raise ValueError(msg)
    made = kind(**given)
    _move_with_module(made)
    return made


def _per_task(name: str, value: Any, tasks: Sequence[str]) -> Any:
    """A value per task becomes a tensor in the order of the tasks."""
    if not isinstance(value, Mapping):
        return value
    if value.keys() != set(tasks):
        msg = f"Expected `{name}` to have one value per task {list(tasks)}, but got {list(value)}."
        raise ValueError(msg)
    return torch.tensor([float(value[task]) for task in tasks])


def _move_with_module(made: nn.Module) -> None:
    """Let plain tensors follow the module to its device; they are settings, so not saved."""
    for module in made.modules():
        for name, value in list(vars(module).items()):
            if isinstance(value, Tensor):
                delattr(module, name)
                module.register_buffer(name, value, persistent=False)


def _moved(value: Any, device: torch.device) -> Any:
    """Tensors, and lists of them, on `device`; all else as it is."""
    if isinstance(value, list):
        return [_moved(v, device) for v in value]
    return value.to(device) if isinstance(value, Tensor) else value


def jacobian_backward(
    losses: Sequence[Tensor],
    parameters: Iterable[nn.Parameter],
    aggregator: nn.Module,
    features: Sequence[Tensor],
    chunk_size: int | None,
) -> None:
    """See `lightning_attnbal.multitask.jacobian_backward`."""
    assert isinstance(aggregator, aggregation.Aggregator)
    shared_features = [feature for feature in features if feature.requires_grad]
    if features and not shared_features:  # nothing that the tasks share trains
        torch.autograd.backward(list(losses))
        return
    if shared_features:
        mtl_backward(losses, shared_features, parallel_chunk_size=chunk_size)
    else:
        backward(losses, parallel_chunk_size=chunk_size)
    jac_to_grad([p for p in parameters if hasattr(p, "jac")], aggregator)
