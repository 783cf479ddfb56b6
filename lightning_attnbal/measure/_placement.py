"""Which unit pays for a call, and whose training makes which of its inputs need a gradient."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from lightning_attnbal.core import PassCost, Unit
from lightning_attnbal.measure._records import Call, TensorSpec, Trace

Units = frozenset[int]
_NONE: Units = frozenset()


@dataclass(frozen=True, slots=True)
class Input:
    """One tensor argument that may need a gradient.

    Args:
        position: which of the call's leaves.
        feeds: units it comes straight from.
        upstream: units whose training makes it need a gradient.
        owner: the unit it belongs to if it is made of parameters only (a tied weight, transposed),
            else None.
    """

    position: int
    feeds: Units
    upstream: Units
    owner: int | None = None


@dataclass(frozen=True, slots=True)
class PlacedCall:
    """A call, given to the unit that pays for it.

    The host is the highest of the module's unit and the units right below: a tied head, whose
    module belongs to the embeddings, is paid by the last block, since its dX is needed as soon as
    anything trains.

    Args:
        number: its place in the trace.
        call: what was called.
        host: the unit that pays; None if no unit is involved.
        inputs: its tensor arguments that may need a gradient.
        owners: parameter name inside the module → the unit that trains it.
        has_backward: whether the backward pass goes through it.
    """

    number: int
    call: Call
    host: int | None
    inputs: tuple[Input, ...]
    owners: Mapping[str, int]
    has_backward: bool

    @property
    def trained_by(self) -> Units:
        """Units with parameters in this call."""
        weights = (i.owner for i in self.inputs if i.owner is not None)
        return frozenset((*self.owners.values(), *weights))

    @property
    def data(self) -> tuple[Input, ...]:
        """The inputs that are no weights."""
        return tuple(i for i in self.inputs if i.owner is None)


Measure = Callable[[PlacedCall, Units, frozenset[int]], tuple[float, float]]
"""(call, units whose parameters train, input positions that need a gradient) → (forward, backward)
cost."""


def trainable_names(units: Iterable[Unit], trainable: Collection[str] | None) -> frozenset[str]:
    """Names of the parameters that move when their unit trains: all, unless told otherwise."""
    names = frozenset(name for unit in units for name in unit.parameters)
    return names if trainable is None else names & frozenset(trainable)


class Placement:
    """Places the calls of a trace, and composes what a unit costs from what its calls cost.

    Args:
        model: the traced model.
        units: in forward order.
        trace: one forward pass.
        trainable: names of the parameters that move when their unit trains; None for all of them.
    """

    def __init__(
        self,
        model: nn.Module,
        units: Sequence[Unit],
        trace: Trace,
        trainable: Collection[str] | None = None,
    ) -> None:
        self._model = model
        self._trace = trace
        self._parameters = dict(model.named_parameters())
        names = trainable_names(units, trainable)
        self._owner = {
            id(self._parameters[name]): unit.index
            for unit in units
            for name in unit.parameters
            if name in names and self._parameters[name].is_floating_point()
        }
        self._unit_of = {name: unit.index for unit in units for name in unit.modules}
        self.calls: list[PlacedCall] = []
        self._outputs: list[Units] = []
        for number, call in enumerate(trace.records):
            self._place(number, call)

    def _place(self, number: int, call: Call) -> None:
        inputs = tuple(
            self._input(position, leaf)
            for position, leaf in enumerate(call.leaves)
            if isinstance(leaf, TensorSpec) and leaf.can_require_grad and leaf.sources
        )
        owners = self._owners(call)
        units = {unit for i in inputs for unit in i.feeds}
        if call.module is not None:
            units.add(self._unit_of[call.module])
        host = max(units, default=None)
        placed = PlacedCall(number, call, host, inputs, owners, self._trace.is_live(number))
        self.calls.append(placed)
        upstream = _NONE.union(*(i.upstream for i in inputs))
        self._outputs.append(upstream | placed.trained_by if call.grad_enabled else _NONE)

    def _owners(self, call: Call) -> dict[str, int]:
        if call.module is None:
            return {}
        module = self._model.get_submodule(call.module)
        named = ((name, id(parameter)) for name, parameter in module.named_parameters())
        return {name: self._owner[key] for name, key in named if key in self._owner}

    def _input(self, position: int, spec: TensorSpec) -> Input:
        numbers = {source for source in spec.sources if isinstance(source, int)}
        names = (source for source in spec.sources if isinstance(source, str))
        keys = (id(self._parameters[name]) for name in names)
        owners = frozenset(self._owner[key] for key in keys if key in self._owner)
        hosts = (self.calls[n].host for n in numbers if self.calls[n].call.grad_enabled)
        feeds = owners | {host for host in hosts if host is not None}
        upstream = owners.union(*(self._outputs[number] for number in numbers))
        owner = None if numbers else max(owners, default=None)
        return Input(position, feeds, upstream, owner)

    def predecessors(self, unit: int) -> tuple[int, ...]:
        """Units whose output the calls paid by `unit` read."""
        feeds = _NONE.union(*(i.feeds for c in self.calls if c.host == unit for i in c.inputs))
        return tuple(sorted(feeds - {unit}))

    def boundary_bytes(self, unit: int) -> int:
        """Bytes of the tensors that calls above `unit` read from it and from what is below."""
        crossing = {
            (spec.sources, spec.shape, spec.dtype)
            for call in self.calls
            if call.host is not None and call.host > unit
            for i in call.data
            if i.feeds and max(i.feeds) <= unit
            for spec in (call.call.leaves[i.position],)
        }
        return sum(math.prod(shape) * dtype.itemsize for _, shape, dtype in crossing)

    def pass_cost(self, unit: int, measure: Measure) -> PassCost:
        """What `unit` costs, composed from `measure` of the calls it pays for."""
        mine = [call for call in self.calls if call.host == unit]
        itself = frozenset({unit})
        shared = sum(_tied(c, unit, measure) for c in self.calls if unit in c.trained_by)
        source = max((lowest for lowest, _ in map(_side, mine)), default=-1)
        crossed = [c for c in mine if source >= 0 and _side(c)[0] == source]
        costs = {
            "forward": (measure(c, _NONE, _NONE)[0] for c in mine),
            "own_backward": (_backward(c, itself, _needing(c, itself), measure) for c in mine),
            "pass_backward": (_backward(c, _NONE, _passing(c, unit), measure) for c in mine),
            "full_backward": (_backward(c, itself, _all(c), measure) for c in mine),
            "side_input": (_side_cost(c, itself, measure) for c in crossed),
            "main_pass": (_main_cost(c, _NONE, measure) for c in crossed),
            "main_full": (_main_cost(c, itself, measure) for c in crossed),
        }
        sums = {name: float(sum(parts)) for name, parts in costs.items()}
        sums["own_backward"] += shared
        sums["full_backward"] += shared
        return PassCost(**sums, side_source=source)


def _backward(call: PlacedCall, owners: Units, data: frozenset[int], measure: Measure) -> float:
    """Backward cost of a call; nothing where the loss does not reach or no gradient is needed."""
    if not call.has_backward or not (data or owners & call.trained_by):
        return 0.0
    return measure(call, owners & call.trained_by, data)[1]


def _needing(call: PlacedCall, trained: Units) -> frozenset[int]:
    return frozenset(i.position for i in call.data if i.upstream & trained)


def _passing(call: PlacedCall, unit: int) -> frozenset[int]:
    return _needing(call, _NONE.union(*(i.upstream for i in call.data)) - {unit})


def _all(call: PlacedCall) -> frozenset[int]:
    return frozenset(i.position for i in call.data if i.upstream)


def _tied(call: PlacedCall, unit: int, measure: Measure) -> float:
    """DW of parameters of `unit` in a call that another unit pays for."""
    if call.host == unit or call.host is None:
        return 0.0
    without = frozenset({call.host})
    positions = _all(call)
    extra = _backward(call, without | {unit}, positions, measure)
    return max(0.0, extra - _backward(call, without, positions, measure))


def _side(call: PlacedCall) -> tuple[int, frozenset[int]]:
    """(lowest side source, positions of the inputs from there); (-1, none) for a single input."""
    data = [i for i in call.data if i.upstream]
    sources = {max(i.feeds) for i in data[1:] if i.feeds != data[0].feeds}
    lowest = min(sources, default=-1)
    return lowest, frozenset(i.position for i in data[1:] if max(i.feeds) == lowest)


def _without(call: PlacedCall, owners: Units, dropped: frozenset[int], measure: Measure) -> float:
    """What the backward pass costs less when the `dropped` inputs need no gradient."""
    positions = _all(call)
    less = _backward(call, owners, positions - dropped, measure)
    return max(0.0, _backward(call, owners, positions, measure) - less)


def _side_cost(call: PlacedCall, itself: Units, measure: Measure) -> float:
    """What the side inputs add, trained or frozen, whichever is less."""
    side = _side(call)[1]
    return min(_without(call, owners, side, measure) for owners in (itself, _NONE))


def _main_cost(call: PlacedCall, owners: Units, measure: Measure) -> float:
    """What all but the side inputs add."""
    return _without(call, owners, _all(call) - _side(call)[1], measure)
