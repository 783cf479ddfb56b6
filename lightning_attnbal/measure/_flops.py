"""What every unit costs in FLOPs and bytes, counted without computing anything."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, MutableMapping, Sequence

from torch import nn
from torch.optim import Optimizer

from lightning_attnbal.core import PassCost, Unit, UnitLoad
from lightning_attnbal.measure._optimizer import state_bytes
from lightning_attnbal.measure._placement import PlacedCall, Placement, Units
from lightning_attnbal.measure._records import Trace
from lightning_attnbal.measure._replay import CallCost, replay_cost
from lightning_attnbal.measure._requests import Requests

CostMemo = MutableMapping[Hashable, CallCost]


def count_units(
    model: nn.Module,
    units: Sequence[Unit],
    trace: Trace,
    *,
    optimizer: Optimizer | None = None,
    trainable: Collection[str] | None = None,
    memo: CostMemo | None = None,
) -> tuple[UnitLoad, ...]:
    """FLOPs and bytes of each unit for one batch, split by what has to be computed.

    Every distinct call is replayed by itself on tensors without numbers (shapes, strides and types
    only), once per combination of gradients that a plan can ask for: forward, dW, dX. Identical
    calls (twelve equal layers) are counted once. The model is not touched and nothing is computed;
    forward hooks of the user do run, on those tensors. Not seen: recomputation under activation
    checkpointing, and custom kernels that torch's counter has no formula for.

    Args:
        model: the traced model, in the mode it trains in.
        units: in forward order.
        trace: one forward pass of it.
        optimizer: prices the optimizer state; without it `optimizer_bytes` is 0.
        trainable: names of the parameters that move when their unit trains; None for all of them.
            Pass it when some parameters never train (the base weights below an adapter).
        memo: keep this between batches; a shape seen before then costs nothing.

    Source:
        Forward : dX : dW of about 1 : 1 : 1 per matrix product is not assumed but counted, by
        `torch.utils.flop_counter`.

    Example:
        >>> import torch
        >>> from lightning_attnbal.core import UnitKind
        >>> from lightning_attnbal.measure._trace import UnitTracer
        >>> model = nn.Sequential(nn.Linear(3, 4, bias=False), nn.Linear(4, 5, bias=False))
        >>> units = [
        ...     Unit(f"layer.{n}", n, UnitKind.BLOCK, (f"{n}",), (f"{n}.weight",), 1)
        ...     for n in range(2)
        ... ]
        >>> with UnitTracer(model, units) as tracer:
        ...     trace = tracer.stop(model(torch.ones(2, 3)).sum())
        >>> for load in count_units(model, units, trace):
        ...     f = load.flops
        ...     print(f.forward, f.own_backward, f.pass_backward, f.full_backward)
        48.0 48.0 0.0 48.0
        80.0 80.0 80.0 160.0
    """
    placement = Placement(model, units, trace, trainable)
    counter = _Counter(model, {} if memo is None else memo)
    sizes = dict(model.named_parameters())
    loads = []
    for unit in units:
        parameters = [sizes[name] for name in unit.parameters]
        loads.append(
            UnitLoad(
                unit,
                placement.pass_cost(unit.index, counter.flops),
                saved_bytes=counter.saved(
                    call for call in placement.calls if call.host == unit.index
                ),
                parameter_bytes=sum(p.numel() * p.element_size() for p in parameters),
                optimizer_bytes=state_bytes(optimizer, parameters) if optimizer else 0,
                boundary_bytes=placement.boundary_bytes(unit.index),
                predecessors=placement.predecessors(unit.index),
            )
        )
    return tuple(loads)


def count_fixed(
    model: nn.Module, units: Sequence[Unit], trace: Trace, *, memo: CostMemo | None = None
) -> PassCost:
    """FLOPs of one batch that no plan changes: operations on the raw input, outside of every unit.

    All other operations outside the units are charged to the highest unit whose output they read.

    Example:
        >>> import torch
        >>> from lightning_attnbal.measure._trace import UnitTracer
        >>> class Kernel(nn.Module):
        ...     def forward(self, x):
        ...         return x @ x.T
        >>> model = Kernel()
        >>> with UnitTracer(model, []) as tracer:
        ...     trace = tracer.stop(model(torch.ones(3, 5)))
        >>> count_fixed(model, [], trace).forward
        90.0
    """
    counter = _Counter(model, {} if memo is None else memo)
    loose = [call for call in Placement(model, units, trace).calls if call.host is None]
    return PassCost(
        forward=float(sum(counter.flops(c, frozenset(), frozenset())[0] for c in loose))
    )


class _Counter:
    """Replays calls under fake tensors, each distinct one once."""

    def __init__(self, model: nn.Module, memo: CostMemo) -> None:
        self._requests = Requests(model)
        self._memo = memo

    def flops(self, call: PlacedCall, owners: Units, data: frozenset[int]) -> tuple[int, int]:
        """(forward, backward) FLOPs."""
        cost = self._cost(call, owners, data)
        return cost.forward, cost.backward

    def saved(self, calls: Iterable[PlacedCall]) -> int:
        """Bytes saved for the backward pass when everything trains."""
        return sum(
            self._cost(c, c.trained_by, frozenset(i.position for i in c.data)).saved_bytes
            for c in calls
            if c.has_backward
        )

    def _cost(self, call: PlacedCall, owners: Units, data: frozenset[int]) -> CallCost:
        request = self._requests(call, owners, data)
        if request.key not in self._memo:
            self._memo[request.key] = replay_cost(request)
        return self._memo[request.key]
