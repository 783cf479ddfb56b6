"""One call of a unit run again by itself, on tensors without numbers."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import (  # no public way to run without numbers
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
    UnsupportedOperatorException,
)
from torch.utils.flop_counter import (
    FlopCounterMode,
    conv_flop_count,
    sdpa_backward_flop_count,
    sdpa_flop_count,
)

from lightning_attnbal.measure._provenance import flatten
from lightning_attnbal.measure._records import Call, TensorSpec
from lightning_attnbal.measure._requests import Request

_NEEDS_NUMBERS = (
    DataDependentOutputException,
    DynamicOutputShapeException,
    UnsupportedOperatorException,
)


def _sdpa(*shapes: Any, **_: Any) -> int:
    return int(sdpa_flop_count(*shapes[:3]))  # type: ignore[no-untyped-call]  # torch's


def _sdpa_backward(*shapes: Any, **_: Any) -> int:
    return int(sdpa_backward_flop_count(*shapes[:4]))  # type: ignore[no-untyped-call]  # torch's


def _convolution_backward(
    gradient: Any,
    inputs: Any,
    weight: Any,
    _bias: Any,
    _stride: Any,
    _padding: Any,
    _dilation: Any,
    transposed: bool,
    _output_padding: Any,
    _groups: Any,
    wanted: Sequence[bool],
    **_: Any,
) -> int:
    """Towards the input and towards the weight each takes as many products as forward."""
    once: int = conv_flop_count(inputs, weight, gradient, transposed=transposed)
    return once * (int(wanted[0]) + int(wanted[1]))


@contextmanager
def flop_counter() -> Iterator[FlopCounterMode]:
    """Count FLOPs, also where torch's counter by itself says 0.

    That is fused attention, recurrent layers on CPU, and the inference path of
    `nn.TransformerEncoderLayer`. The last two are counted by their matrix products, for which the
    fused kernels are switched off while counting; on real tensors that changes results within
    rounding.

    Source:
        `torch.utils.flop_counter.FlopCounterMode`, which has no formula for
        `aten._scaled_dot_product_flash_attention_for_cpu` and `aten.mkldnn_rnn_layer`, and counts
        the weight gradient of a grouped convolution `groups` times too high (torch 2.14).

    Example:
        >>> with flop_counter() as counter:
        ...     y = torch.ones(2, 3) @ torch.ones(3, 4)
        >>> counter.get_total_flops()
        48
    """
    aten = torch.ops.aten
    formulas = {
        aten._scaled_dot_product_flash_attention_for_cpu: _sdpa,
        aten._scaled_dot_product_flash_attention_for_cpu_backward: _sdpa_backward,
        aten.convolution_backward: _convolution_backward,
    }
    switches: tuple[Any, ...] = (torch.backends.mkldnn, torch.backends.cudnn)
    were_enabled = [switch.enabled for switch in switches]
    had_fast_path = torch.backends.mha.get_fastpath_enabled()
    try:
        torch.backends.mha.set_fastpath_enabled(False)
        for switch in switches:
            switch.enabled = False
        with FlopCounterMode(display=False, custom_mapping=formulas) as counter:
            yield counter
    finally:
        torch.backends.mha.set_fastpath_enabled(had_fast_path)
        for switch, enabled in zip(switches, were_enabled, strict=True):
            switch.enabled = enabled


@dataclass(frozen=True, slots=True)
class CallCost:
    """What one replay cost: FLOPs forward and backward, bytes saved for the backward pass."""

    forward: int
    backward: int
    saved_bytes: int


@dataclass(frozen=True, slots=True)
class Tensors:
    """What a replay runs on: weights and buffers by name, inputs in the order of the leaves."""

    weights: dict[str, Tensor]
    buffers: dict[str, Tensor]
    inputs: list[Any]

    @classmethod
    def fake(cls, request: Request) -> Tensors:
        """Shapes only; call it under a fake tensor mode."""
        weights = {name: TensorSpec.of(p).empty() for name, p in _named(request, "parameters")}
        buffers = {name: TensorSpec.of(b).empty() for name, b in _named(request, "buffers")}
        leaves = [x.empty() if isinstance(x, TensorSpec) else x for x in request.call.leaves]
        return cls(weights, buffers, leaves)

    @classmethod
    def real(cls, request: Request) -> Tensors:
        """Aliases of the weights, copies of the buffers, inputs as kept or else invented."""
        weights = {name: p.detach() for name, p in _named(request, "parameters")}
        buffers = {name: b.clone() for name, b in _named(request, "buffers")}
        leaves = request.call.inputs or request.call.leaves
        made = (x.sample() if isinstance(x, TensorSpec) else x for x in leaves)
        return cls(weights, buffers, [x.detach() if isinstance(x, Tensor) else x for x in made])

    def require_grad(self, request: Request) -> list[Tensor]:
        """The tensors that the request wants gradients of, told so."""
        wanted = [self.weights[name] for name in request.parameters]
        wanted += [self.inputs[position] for position in request.leaves]
        for tensor in wanted:
            tensor.requires_grad_()
        return wanted


def _named(request: Request, kind: str) -> Iterable[tuple[str, Tensor]]:
    module = request.module
    return () if module is None else getattr(module, f"named_{kind}")()


def replay_cost(request: Request) -> CallCost:
    """Forward and backward of one call, counted on shapes alone; the model is not touched.

    Where the shapes depend on the numbers (packed sequences, routing to experts) the call is run
    for real, on the kept inputs or on invented ones.
    """
    try:
        with FakeTensorMode(allow_non_fake_inputs=True):
            return _count(request, Tensors.fake(request))
    except _NEEDS_NUMBERS:
        device = next((p.device for _, p in _named(request, "parameters") if not p.is_cpu), None)
        with forked_rng(device):
            return _count(request, Tensors.real(request))


def _count(request: Request, tensors: Tensors) -> CallCost:
    wanted = tensors.require_grad(request)
    saved = SavedBytes([*tensors.weights.values(), *tensors.buffers.values()])
    with flop_counter() as counter:
        inputs = fresh(tensors.inputs)
        with saved.hooks(), autocast(request.call), torch.enable_grad():
            result = run(request, tensors, inputs)
        forward = counter.get_total_flops()
        backpropagate(result, wanted)
        return CallCost(forward, counter.get_total_flops() - forward, saved.total)


def run(request: Request, tensors: Tensors, inputs: Iterable[Any]) -> Any:
    """Run the call once more, on these tensors instead of the module's own and the traced."""
    args, kwargs = request.call.arguments(inputs)
    if request.module is not None:
        state = {**tensors.weights, **tensors.buffers}
        return torch.func.functional_call(request.module, state, args, kwargs)
    assert request.call.function is not None
    return request.call.function(*args, **kwargs)


def fresh(inputs: Iterable[Any]) -> list[Any]:
    """Copies inside the graph, so that a module may overwrite its input."""
    return [x.clone() if isinstance(x, Tensor) else x for x in inputs]


def forked_rng(device: torch.device | None) -> AbstractContextManager[Any]:
    """A random state of its own inside the `with` block, on CPU and on the accelerator `device`."""
    if device is None:
        return torch.random.fork_rng(devices=[])
    return torch.random.fork_rng(devices=[device], device_type=device.type)


def autocast(call: Call) -> AbstractContextManager[Any]:
    """The autocast the call was made under."""
    if call.autocast is None:
        return nullcontext()
    device, dtype = call.autocast
    return torch.autocast(device, dtype=dtype)


def backpropagate(result: Any, wanted: list[Tensor]) -> None:
    """Gradients of all outputs towards the `wanted` leaves, as in a training step."""
    outputs = [y for y in flatten(result)[0] if isinstance(y, Tensor) and y.requires_grad]
    if wanted and outputs:
        ones = [torch.ones_like(y) for y in outputs]
        torch.autograd.backward(outputs, ones, inputs=wanted)


class SavedBytes:
    """Bytes autograd keeps for the backward pass: each storage once, the `excluded` never.

    Example:
        >>> x = torch.ones(4, requires_grad=True)
        >>> saved = SavedBytes([])
        >>> with saved.hooks():
        ...     y = x.exp()
        >>> saved.total
        16
    """

    def __init__(self, excluded: Collection[Tensor]) -> None:
        self.total = 0
        self._seen = {_storage(tensor) for tensor in excluded}
        self._alive: list[Tensor] = []  # so that no storage number is used again

    def hooks(self) -> AbstractContextManager[None]:
        """Count what is saved inside the `with` block."""
        return torch.autograd.graph.saved_tensors_hooks(self._pack, lambda tensor: tensor)

    def _pack(self, tensor: Tensor) -> Tensor:
        if _storage(tensor) not in self._seen:
            self._seen.add(_storage(tensor))
            self._alive.append(tensor)
            self.total += tensor.untyped_storage().nbytes()
        return tensor


def _storage(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)
