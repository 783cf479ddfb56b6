"""One call of a unit run again by itself, on tensors without numbers."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode  # no public way to run without numbers
from torch.utils.flop_counter import (
    FlopCounterMode,
    sdpa_backward_flop_count,
    sdpa_flop_count,
)

from lightning_attnbal.measure._provenance import flatten
from lightning_attnbal.measure._records import Call, TensorSpec
from lightning_attnbal.measure._requests import Request


def _sdpa(*shapes: Any, **_: Any) -> int:
    return int(sdpa_flop_count(*shapes[:3]))  # type: ignore[no-untyped-call]  # torch's


def _sdpa_backward(*shapes: Any, **_: Any) -> int:
    return int(sdpa_backward_flop_count(*shapes[:4]))  # type: ignore[no-untyped-call]  # torch's


@contextmanager
def flop_counter() -> Iterator[FlopCounterMode]:
    """Count FLOPs, also where torch's counter by itself says 0.

    That is fused attention, recurrent layers on CPU, and the inference path of
    `nn.TransformerEncoderLayer`. The last two are counted by their matrix products, for which the
    fused kernels are switched off while counting; on real tensors that changes results within
    rounding.

    Source:
        `torch.utils.flop_counter.FlopCounterMode`, which has no formula for
        `aten._scaled_dot_product_flash_attention_for_cpu` and `aten.mkldnn_rnn_layer` (torch 2.14).

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


def replay_cost(request: Request) -> CallCost:
    """Forward and backward of one call on shapes alone; nothing real is computed or touched."""
    call, module = request.call, request.module
    with FakeTensorMode(allow_non_fake_inputs=True), flop_counter() as counter:
        weights, buffers = _fake_state(module)
        inputs = [leaf.empty() if isinstance(leaf, TensorSpec) else leaf for leaf in call.leaves]
        wanted = [weights[name] for name in request.parameters]
        wanted += [inputs[position] for position in request.leaves]
        for tensor in wanted:
            tensor.requires_grad_()
        inputs = fresh(inputs)
        saved = SavedBytes([*weights.values(), *buffers.values()])
        with saved.hooks(), autocast(call), torch.enable_grad():
            result = run(call, module, {**weights, **buffers}, inputs)
        forward = counter.get_total_flops()
        backpropagate(result, wanted)
        return CallCost(forward, counter.get_total_flops() - forward, saved.total)


def _fake_state(module: nn.Module | None) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Fake (parameters, buffers) of a module, by name."""
    if module is None:
        return {}, {}
    return (
        {name: TensorSpec.of(p).empty() for name, p in module.named_parameters()},
        {name: TensorSpec.of(b).empty() for name, b in module.named_buffers()},
    )


def run(
    call: Call, module: nn.Module | None, state: Mapping[str, Tensor], inputs: Collection[Any]
) -> Any:
    """Run `call` once more with these tensors instead of the module's own and the traced ones."""
    args, kwargs = call.arguments(inputs)
    if module is not None:
        return torch.func.functional_call(module, dict(state), args, kwargs)
    assert call.function is not None
    return call.function(*args, **kwargs)


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
