"""What every unit costs in seconds, by running its real calls again, one by one."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Hashable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lightning_attnbal.core import UnitLoad, check_integer
from lightning_attnbal.measure._optimizer import like
from lightning_attnbal.measure._placement import PlacedCall, Placement, Units
from lightning_attnbal.measure._provenance import flatten
from lightning_attnbal.measure._records import Trace
from lightning_attnbal.measure._replay import Tensors, autocast, forked_rng, fresh, run
from lightning_attnbal.measure._requests import Request, Requests

Track = Callable[[Sequence[Any]], Iterable[Any]]
"""Passes a sequence on while showing the progress."""


def time_units(
    model: nn.Module,
    loads: Sequence[UnitLoad],
    trace: Trace,
    *,
    optimizer: Optimizer | None = None,
    trainable: Collection[str] | None = None,
    repeats: int = 3,
    track: Track = iter,
) -> tuple[UnitLoad, ...]:
    """The loads with seconds: the fastest of `repeats` rounds through all distinct calls.

    Each call runs on its real inputs with detached aliases of the weights and copies of the
    buffers, so that weights, gradients, buffers and random state stay as they are. Rounds are
    interleaved: a slow moment of the machine spreads over all units. The first round warms up and
    is dropped.

    Args:
        model: the traced model.
        loads: units, forward order.
        trace: made with `keep_inputs=True`.
        optimizer: an optimizer whose class and settings update copies of each unit's parameters;
            without it the update costs 0.
        trainable: names of the parameters that move when their unit trains; None for all of them.
        repeats: timed rounds, in [1, inf).
        track: wraps the rounds, to show a progress bar.

    Raises:
        ValueError: the trace kept no inputs, or `repeats` is out of range.

    Example:
        >>> from lightning_attnbal.core import Unit, UnitKind
        >>> from lightning_attnbal.measure import UnitTracer, count_units
        >>> model = nn.Sequential(nn.Linear(3, 4))
        >>> units = [Unit("layer", 0, UnitKind.BLOCK, ("0",), ("0.weight", "0.bias"), 16)]
        >>> with UnitTracer(model, units, keep_inputs=True) as tracer:
        ...     trace = tracer.stop(model(torch.ones(2, 3)).sum())
        >>> (load,) = time_units(model, count_units(model, units, trace), trace)
        >>> 0 < load.seconds.forward < 1, load.seconds.pass_backward
        (True, 0.0)
    """
    check_integer("repeats", repeats, low=1)
    if any(call.inputs is None for call in trace.records):
        msg = "Expected `trace` to hold real inputs, but it does not; trace with keep_inputs=True."
        raise ValueError(msg)
    units = [load.unit for load in loads]
    placement = Placement(model, units, trace, trainable)
    timer = _Timer(model)
    for unit in units:
        placement.pass_cost(unit.index, timer.ask)
    timer.measure(repeats, track)
    parameters = dict(model.named_parameters())
    timed = []
    for load in loads:
        cost = placement.pass_cost(load.unit.index, timer.answer)
        trained = [
            parameters[n] for n in load.unit.parameters if trainable is None or n in trainable
        ]
        update = optimizer_seconds(optimizer, trained, repeats) if optimizer and trained else 0.0
        timed.append(replace(load, seconds=replace(cost, optimizer=update)))
    return tuple(timed)


class _Timer:
    """Collects requests, times each distinct one, and answers with the fastest run."""

    def __init__(self, model: nn.Module) -> None:
        self._requests = Requests(model)
        self._asked: dict[Hashable, Request] = {}
        self._fastest: dict[Hashable, tuple[float, float]] = {}

    def ask(self, call: PlacedCall, owners: Units, data: frozenset[int]) -> tuple[float, float]:
        request = self._requests(call, owners, data)
        self._asked.setdefault(request.key, request)
        return 0.0, 0.0

    def measure(self, repeats: int, track: Track) -> None:
        seen: dict[Hashable, list[tuple[float, float]]] = {key: [] for key in self._asked}
        for _ in track(range(1 + repeats)):
            for key, request in self._asked.items():
                seen[key].append(replay_seconds(request))
        for key, times in seen.items():
            forward, backward = zip(*times[1:], strict=True)
            self._fastest[key] = (min(forward), min(backward))

    def answer(self, call: PlacedCall, owners: Units, data: frozenset[int]) -> tuple[float, float]:
        return self._fastest[self._requests(call, owners, data).key]


def replay_seconds(request: Request) -> tuple[float, float]:
    """(forward, backward) seconds of one run on the real inputs; leaves no trace in the model."""
    tensors = Tensors.real(request)
    wanted = tensors.require_grad(request)
    every = (*wanted, *tensors.weights.values())
    device = next((x.device for x in every if not x.is_cpu), None)
    with forked_rng(device), autocast(request.call), torch.enable_grad():
        inputs = fresh(tensors.inputs)
        start = _now(device)
        result = run(request, tensors, inputs)
        middle = _now(device)
    outputs = [y for y in flatten(result)[0] if isinstance(y, Tensor) and y.requires_grad]
    if not outputs:
        return middle - start, 0.0
    ones = [torch.ones_like(y) for y in outputs]
    again = _now(device)
    torch.autograd.backward(outputs, ones, inputs=wanted)
    return middle - start, _now(device) - again


def optimizer_seconds(optimizer: Optimizer, parameters: Sequence[Tensor], repeats: int) -> float:
    """Seconds of the fastest of `repeats` updates of copies of `parameters`, gradients present.

    Example:
        >>> weight = torch.ones(4, requires_grad=True)
        >>> 0 < optimizer_seconds(torch.optim.SGD([weight], lr=0.1), [weight], repeats=3) < 1
        True
    """
    copies = [torch.zeros_like(p, requires_grad=True) for p in parameters]
    for copy in copies:
        copy.grad = torch.zeros_like(copy)
    trial = like(optimizer, copies)
    device = next((p.device for p in copies if p.device.type != "cpu"), None)
    times = []
    for _ in range(1 + repeats):
        start = _now(device)
        trial.step()
        times.append(_now(device) - start)
    return min(times[1:])


def _now(device: torch.device | None) -> float:
    """Seconds on the clock, once the device has done all it was given."""
    if device is not None:
        torch.accelerator.synchronize(device)
    return time.perf_counter()
