"""What can only be told about a model by training it for a few steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree  # torch has no public tree utilities yet

from lightning_attnbal.apply import ActivationStore, PlanApplier, PrefixCache
from lightning_attnbal.core import CACHED, FROZEN, FULL, Plan, Unit, UnitKind
from lightning_attnbal.measure import profile, run_model
from lightning_attnbal.measure.attention import measure_attention
from lightning_attnbal.planning._contributions import trainable_units
from lightning_attnbal.planning._finding import Finding, Verdict
from lightning_attnbal.planning._structure import listed

Forward = Callable[[nn.Module, Any], Any]

_ROOM = "1GiB"  # for one batch
_STEPS = 8  # a cache watches, follows and compares for a few before it reads


def try_out(
    model: nn.Module, units: Sequence[Unit], batch: Any, forward: Forward | None = None
) -> Iterator[Finding]:
    """Which levels a menu can offer, and whether a gradient reaches every unit.

    Leaves gradients and batch statistics of `model` changed.
    """
    report = profile(model, batch, forward=forward, seconds=False)
    ordered = [load.unit for load in report.loads] if _same(report.loads, units) else list(units)
    reached = _reached(model, ordered, batch, forward)
    unused = [u.name for u in trainable_units(model, units) if u.name not in reached]
    if unused:
        text = f"No gradient reached {listed(unused)} on this batch."
        yield Finding(Verdict.NOTE, "unused", text)
    yield _attention(model, batch, forward)
    yield _caching(model, ordered, reached, partial(_loss, model, batch, forward))
    yield _cutting(model, ordered, batch, forward)


def _same(loads: Sequence[Any], units: Sequence[Unit]) -> bool:
    return {load.unit.name for load in loads} == {unit.name for unit in units}


def _loss(model: nn.Module, batch: Any, forward: Forward | None) -> Tensor:
    """The loss of a batch, or where there is none the mean square of what the model returns."""
    found = run_model(model, batch, forward)
    if isinstance(found, Tensor) and found.numel() == 1:
        return found
    floats = [x for x in pytree.tree_leaves(found) if isinstance(x, Tensor) and x.requires_grad]
    if not floats:
        msg = "Expected the model to return a tensor that gradients reach, but it returned none."
        raise ValueError(msg)
    return torch.stack([x.float().square().mean() for x in floats]).sum()


def _reached(
    model: nn.Module, units: Sequence[Unit], batch: Any, forward: Forward | None
) -> list[str]:
    """Names of the trainable units that the loss depends on, forward order."""
    model.zero_grad()
    _loss(model, batch, forward).backward()  # type: ignore[no-untyped-call]  # torch's
    parameters = dict(model.named_parameters(remove_duplicate=False))
    able = trainable_units(model, units)
    return [u.name for u in able if any(parameters[n].grad is not None for n in u.parameters)]


def _attention(model: nn.Module, batch: Any, forward: Forward | None) -> Finding:
    """Layers whose heads can be looked at."""
    seen = measure_attention(model, partial(_loss, model, batch, forward)).entropy
    if not seen:
        return Finding(Verdict.NOTE, "attention", "No layers found that compute attention.")
    heads = sorted({len(values) for values in seen.values()})
    text = f"Heads can be looked at in {listed(seen)}: {' or '.join(map(str, heads))} per layer."
    return Finding(Verdict.FINE, "attention", text)


def _caching(
    model: nn.Module, units: Sequence[Unit], reached: Sequence[str], loss: Callable[[], Tensor]
) -> Finding:
    """The deepest prefix that can be cached, found by doing it; what holds above it is refused."""
    names = [unit.name for unit in units]
    deepest = names.index(reached[-1])
    if not deepest:
        return Finding(Verdict.LIMITED, "caching", "Only the lowest unit may train: no prefix.")
    with ActivationStore(ram=_ROOM) as store, _Trial(model, units, store, loss) as trial:
        reason = trial.why_not(deepest)
        if reason is None:
            text = f"A frozen prefix can be cached, up to {names[deepest - 1]}."
            return Finding(Verdict.FINE, "caching", text)
        works, fails = 0, deepest
        while fails - works > 1:
            middle = (works + fails) // 2
            if trial.why_not(middle) is None:
                works = middle
            else:
                fails = middle
    until = f"can be cached up to {names[works - 1]}" if works else "cannot be cached"
    text = f"A frozen prefix {until}; up to {names[deepest - 1]} not, because {reason}."
    return Finding(Verdict.LIMITED, "caching", f"{text} It is frozen instead.")


class _Trial:
    """Trains with a cached prefix, without taking optimizer steps."""

    def __init__(
        self,
        model: nn.Module,
        units: Sequence[Unit],
        store: ActivationStore,
        loss: Callable[[], Tensor],
    ) -> None:
        self._cache = PrefixCache(model, units, store)
        self._applier = PlanApplier(model, units, cache=self._cache)
        self._loss = loss
        self._names = [unit.name for unit in units]
        self._able = {unit.name for unit in trainable_units(model, units)}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._applier.undo()

    def why_not(self, depth: int) -> str | None:
        """Why the lowest `depth` units cannot be cached together, or None."""
        prefix = self._names[:depth]
        above = {n: FULL if n in self._able else FROZEN for n in self._names[depth:]}
        self._applier.apply(Plan({**dict.fromkeys(prefix, CACHED), **above}))
        before = self._cache.counts.rows_read
        for _ in range(_STEPS):
            self._step()
            reason = self._cache.why_not(prefix)
            if reason is not None or self._cache.counts.rows_read > before:
                return reason
        return f"nothing was read back in {_STEPS} steps"

    def _step(self) -> None:
        self._cache.begin_step()
        loss = self._loss()
        self._cache.end_forward(loss)
        loss.backward()  # type: ignore[no-untyped-call]  # torch's
        self._cache.end_backward()


def _cutting(
    model: nn.Module, units: Sequence[Unit], batch: Any, forward: Forward | None
) -> Finding:
    """Which blocks have residual branches that can be cut."""
    applier = PlanApplier(model, units, forward=lambda: run_model(model, batch, forward))
    blocks = [unit.name for unit in units if unit.kind is UnitKind.BLOCK]
    reasons = {name: applier.why_not_detachable(name) for name in blocks}
    whole = [name for name, reason in reasons.items() if reason is not None]
    levels = "cached, frozen and full; on request detached and local"
    if not blocks or len(whole) == len(blocks):
        why = f" (not detached, local: {reasons[whole[0]]})" if whole else ""
        return Finding(Verdict.NOTE, "levels", f"cached, frozen and full{why}.")
    if whole:
        text = f"{levels}, but for {listed(whole)}: {reasons[whole[0]]}."
        return Finding(Verdict.NOTE, "levels", text)
    return Finding(Verdict.FINE, "levels", f"{levels}, for all {len(blocks)} blocks.")
