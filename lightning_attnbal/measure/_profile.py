"""Profile a model in one call, and leave it exactly as it was."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn
from torch.optim import Optimizer

from lightning_attnbal.measure._discover import discover_units, order_units
from lightning_attnbal.measure._discover_groups import UnitSpec
from lightning_attnbal.measure._flops import count_fixed, count_units
from lightning_attnbal.measure._records import Trace
from lightning_attnbal.measure._replay import forked_rng
from lightning_attnbal.measure._report import LoadReport
from lightning_attnbal.measure._seconds import time_units
from lightning_attnbal.measure._trace import UnitTracer


def profile(
    model: nn.Module,
    batch: Any,
    *,
    units: UnitSpec = None,
    forward: Callable[[nn.Module, Any], Any] | None = None,
    optimizer: Optimizer | None = None,
    seconds: bool = True,
    repeats: int = 3,
) -> LoadReport:
    """What training each unit of `model` costs on `batch`: FLOPs, bytes and, if wanted, seconds.

    One real forward pass in the model's current mode shows what is called with what; FLOPs and
    bytes are then counted on tensors without numbers, and seconds by running the units again one by
    one. Parameters that do not require a gradient count as never trained. Weights, gradients,
    buffers, random state, modes and hooks are afterwards as before, also when the model raises.

    Args:
        model: any module.
        batch: a mapping for `model(**batch)`, a tuple or list for `model(*batch)`, anything else
            for `model(batch)`.
        units: how to divide the model; None to discover its blocks.
        forward: runs the model instead, `forward(model, batch)`, and returns the loss or any
            output.
        optimizer: prices the update and its state.
        seconds: also time the units; costs some `8 · repeats` forward passes.
        repeats: timed rounds, in [1, inf).

    Raises:
        UnsupportedModelError: no units can be found.
        ValueError: `repeats` is out of range.

    Example:
        >>> model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2))
        >>> report = profile(model, torch.ones(4, 8), seconds=False)
        >>> report.flops.amount  # 2 · 4 · (2 · 8 · 16 + 3 · 16 · 2): the first layer has no dX
        2816.0
    """
    with unchanged(model):
        found = discover_units(model, units)
        tracer = UnitTracer(model, found, keep_inputs=seconds)
        trace = _traced(tracer, partial(run_model, model, batch, forward))
        ordered = order_units(found, trace.calls)
        trainable = [name for name, p in model.named_parameters() if p.requires_grad]
        settings: dict[str, Any] = {"optimizer": optimizer, "trainable": trainable}
        loads = count_units(model, ordered, trace, **settings)
        fixed = count_fixed(model, ordered, trace)
        if seconds:
            loads = time_units(model, loads, trace, repeats=repeats, track=_progress, **settings)
    return LoadReport(loads, fixed, type(model).__name__)


def _traced(tracer: UnitTracer, forward: Callable[[], Any]) -> Trace:
    with tracer, torch.enable_grad():
        return tracer.stop(forward())


def run_model(
    model: nn.Module, batch: Any, forward: Callable[[nn.Module, Any], Any] | None = None
) -> Any:
    """Run a model on a batch; the loss where its output carries one, else the output itself.

    Args:
        model: any module.
        batch: a mapping for `model(**batch)`, a tuple or list for `model(*batch)`, anything else
            for `model(batch)`.
        forward: runs the model instead, `forward(model, batch)`.

    Returns:
        `loss` of a dictionary or an object such as a Hugging Face output; else what was returned.

    Example:
        >>> run_model(nn.Identity(), (torch.ones(2),))
        tensor([1., 1.])
        >>> run_model(nn.Identity(), None, lambda model, batch: {"loss": torch.tensor(0.5)})
        tensor(0.5000)
    """
    return _loss((forward or call)(model, batch))


def call(model: nn.Module, batch: Any) -> Any:
    """Run the model on a batch of any common form.

    Example:
        >>> call(nn.Identity(), (torch.ones(2),))
        tensor([1., 1.])
    """
    if isinstance(batch, Mapping):
        return model(**batch)
    if isinstance(batch, Sequence) and not isinstance(batch, str):
        return model(*batch)
    return model(batch)


def _loss(output: Any) -> Any:
    """The loss a Hugging Face output or a dictionary carries, else the output itself."""
    found = output.get("loss") if isinstance(output, Mapping) else getattr(output, "loss", None)
    return output if found is None else found


def _progress(rounds: Iterable[int]) -> Iterable[int]:
    console = Console(stderr=True)
    hidden = not console.is_terminal
    return track(rounds, "Timing units", console=console, disable=hidden, transient=True)


@contextmanager
def unchanged(model: nn.Module) -> Iterator[None]:
    """Undo what running the model changes: buffers and the random state of torch, Python and NumPy.

    Example:
        >>> norm = nn.BatchNorm1d(2)
        >>> with unchanged(norm):
        ...     y = norm(torch.ones(4, 2))
        >>> norm.num_batches_tracked
        tensor(0)
    """
    kept = [
        (module._buffers, name, buffer, buffer.clone())
        for module in model.modules()
        for name, buffer in module._buffers.items()
        if isinstance(buffer, Tensor)
    ]
    device = next((p.device for p in model.parameters() if p.device.type != "cpu"), None)
    python_state, numpy_state = random.getstate(), np.random.get_state()
    try:
        with forked_rng(device):
            yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)
        for buffers, name, buffer, copy in kept:
            with torch.no_grad():
                buffer.copy_(copy)
            buffers[name] = buffer
