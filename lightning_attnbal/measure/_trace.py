"""One ordinary forward pass, written down: which unit was called with what, and what fed it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from lightning_attnbal.core import Unit
from lightning_attnbal.measure._provenance import Provenance, Sources, flatten, is_kv_cache
from lightning_attnbal.measure._records import Call, TensorSpec, Trace


class UnitTracer:
    """Writes down one forward pass of the user's own step, without changing it.

    Forward hooks on the units' modules note every call; in between, a function mode follows the
    data flow and notes operations that cost FLOPs outside the units (a tied head, a contrastive
    loss). Nothing is run twice, no number changes, and `stop` (or leaving the `with` block, also by
    an exception) removes all of it.

    Args:
        model: the model that holds the units.
        units: what to watch.
        provenance: follow the data flow; without it every call is taken to depend on the one before
            it only, and operations outside the units are not seen.
        keep_inputs: keep the real inputs of each call, for timing.

    Raises:
        ValueError: a unit names a module that `model` does not have.

    Example:
        >>> from lightning_attnbal.core import UnitKind
        >>> model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
        >>> units = [
        ...     Unit(n, i, UnitKind.BLOCK, (n,), (f"{n}.weight",), 6) for i, n in enumerate("01")
        ... ]
        >>> with UnitTracer(model, units) as tracer:
        ...     trace = tracer.stop(model(torch.ones(4, 2)).sum())
        >>> trace.calls, trace.records[1].leaves[0].sources
        (('0', '1'), frozenset({0}))
    """

    def __init__(
        self,
        model: nn.Module,
        units: Sequence[Unit],
        *,
        provenance: bool = True,
        keep_inputs: bool = False,
    ) -> None:
        known = dict(model.named_modules())
        names = [name for unit in units for name in unit.modules]
        missing = [name for name in names if name not in known]
        if missing:
            msg = f"Expected `units` to name modules of the model, but got {', '.join(missing)}."
            raise ValueError(msg)
        self._modules = {name: known[name] for name in names}
        self._device_type = next((p.device.type for p in model.parameters()), "cpu")
        self._provenance = provenance
        self._keep_inputs = keep_inputs
        self._parameters = dict(model.named_parameters())
        self._handles: list[RemovableHandle] = []
        self._is_running = False
        self._records: list[Call] = []
        self._flow: Provenance | None = None
        self._depth = 0

    def start(self) -> None:
        """Begin a new trace.

        Raises:
            RuntimeError: the tracer is running.
        """
        if self._is_running:
            msg = "Expected `start` on a stopped tracer, but it is running; call `stop` first."
            raise RuntimeError(msg)
        self._records, self._depth, self._is_running = [], 0, True
        for name, module in self._modules.items():
            self._install(name, module)
        if self._provenance:
            self._flow = Provenance(self._parameters, self._note_function)
            self._flow.__enter__()  # type: ignore[no-untyped-call]  # torch's

    def _install(self, name: str, module: nn.Module) -> None:
        def enter(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            self._enter(name, args, kwargs)

        def leave(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
            self._leave((args, kwargs, list(module.parameters())), result)

        after = {"with_kwargs": True, "always_call": True}
        self._handles.append(module.register_forward_pre_hook(enter, with_kwargs=True))
        self._handles.append(module.register_forward_hook(leave, **after))

    def stop(self, loss: Any = None) -> Trace:
        """End the trace and remove every hook.

        Args:
            loss: what the backward pass starts from, a tensor or a tree of them; tells which calls
                it will reach.

        Raises:
            RuntimeError: the tracer is not running.
        """
        if not self._is_running:
            msg = "Expected `stop` on a running tracer, but it is not; call `start` first."
            raise RuntimeError(msg)
        sources: Sources = frozenset()
        if self._flow is not None:
            sources = sources.union(*map(self._flow.sources, _tensors(loss)))
        self._remove()
        return Trace(tuple(self._records), _upstream(self._records, sources) if sources else None)

    def _remove(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._is_running = False
        if self._flow is not None:
            flow, self._flow = self._flow, None
            flow.__exit__(None, None, None)  # type: ignore[no-untyped-call]  # torch's

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        self._remove()

    def _enter(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._depth += 1
        if self._depth > 1:  # a unit's module that calls itself
            return
        self._pause(True)
        self._records.append(self._call(Call(name, None, (), None), args, kwargs))

    def _leave(self, inputs: Any, result: Any) -> None:
        self._depth -= 1
        if self._depth:
            return
        if self._flow is not None:
            self._mark(self._flow, _tensors(inputs), _tensors(result))
        self._pause(False)

    def _mark(self, flow: Provenance, inputs: list[Tensor], outputs: list[Tensor]) -> None:
        """Outputs come from this call; one that could have a gradient but has none is cut off."""
        expected = torch.is_grad_enabled() and any(x.requires_grad for x in inputs)
        for output in outputs:
            can_flow = output.requires_grad or not expected
            flow.mark(output, frozenset({len(self._records) - 1} if can_flow else ()))

    def _pause(self, paused: bool) -> None:
        if self._flow is not None:
            self._flow.paused = paused

    def _note_function(
        self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> int:
        self._records.append(self._call(Call(None, function, (), None), args, kwargs))
        return len(self._records) - 1

    def _call(self, call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
        leaves, structure = flatten((args, kwargs))
        device = self._device_type
        autocast = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
        return replace(
            call,
            leaves=tuple(map(self._spec, leaves)),
            structure=structure,
            autocast=None if autocast is None else (device, autocast),
            grad_enabled=torch.is_grad_enabled(),
            inputs=tuple(map(_kept, leaves)) if self._keep_inputs else None,
        )

    def _spec(self, leaf: Any) -> Any:
        if isinstance(leaf, Tensor):
            return TensorSpec.of(leaf, self._sources(leaf))
        return None if is_kv_cache(leaf) else leaf

    def _sources(self, tensor: Tensor) -> Sources:
        if self._flow is not None:
            return self._flow.sources(tensor)
        return frozenset({len(self._records) - 1} if self._records else ())


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in flatten(tree)[0] if isinstance(leaf, Tensor)]


def _kept(leaf: Any) -> Any:
    """A copy that later in-place operations do not reach; caches are dropped."""
    if isinstance(leaf, Tensor):
        return leaf.detach().clone()
    return None if is_kv_cache(leaf) else leaf


def _upstream(records: Sequence[Call], sources: Collection[int | str]) -> frozenset[int]:
    """Numbers of the calls among `sources` and everything that fed them."""
    found: set[int] = set()
    waiting = {source for source in sources if isinstance(source, int)}
    while waiting:
        number = waiting.pop()
        found.add(number)
        specs = (leaf for leaf in records[number].leaves if isinstance(leaf, TensorSpec))
        waiting |= {s for spec in specs for s in spec.sources if isinstance(s, int)} - found
    return frozenset(found)
