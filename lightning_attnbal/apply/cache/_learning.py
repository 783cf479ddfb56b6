"""What a step's loss and gradients tell of the prefix."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from lightning_attnbal.apply.cache._cut import Cut
from lightning_attnbal.apply.cache._outputs import Place
from lightning_attnbal.apply.cache._pass import Pass
from lightning_attnbal.apply.cache._prefixes import Prefixes
from lightning_attnbal.apply.cache._proof import padding_matters, reached
from lightning_attnbal.apply.cache._reasons import NotCacheableError
from lightning_attnbal.apply.cache._shelf import Shelf
from lightning_attnbal.apply.cache._step import Step


def learn(cut: Cut, step: Step, loss: Tensor, shelf: Shelf, prefixes: Prefixes) -> None:
    """What leaves the prefix, and store the rows of this step; or why it cannot be cached."""
    try:
        step.check_loss(loss)
        if step.probes and not prefixes.is_refused(cut):
            _learn_needed(cut, step, loss)
            for probe in step.probes:
                _store(cut, probe, shelf)
    except NotCacheableError as reason:
        prefixes.refuse(cut, reason)
        step.probes.clear()


def _learn_needed(cut: Cut, step: Step, loss: Tensor) -> None:
    """What leaves the prefix.

    Raises:
        NotCacheableError: nothing does, or something else than before.
    """
    needed = _needed(step, loss)
    if cut.needed is None:
        cut.needed = needed
        if step.reads is not None:
            cut.state.add(list(step.reads.outer.values()))
    elif not needed <= cut.needed:
        msg = "the loss depends on other layers' outputs than it did before"
        raise NotCacheableError(msg)


def _store(cut: Cut, probe: Pass, shelf: Shelf) -> None:
    forms = cut.learn_forms(probe.rows, probe.forms)
    if forms is None:
        return
    if cut.trims is None:
        cut.trims = cut.may_trim(probe.rows, forms)
    if probe.rows.real is None or cut.trims:
        shelf.put(cut, probe, forms)


def _needed(step: Step, loss: Tensor) -> frozenset[Place]:
    """Tensors the loss depends on, that were read, or whose use leaves no trace."""
    leaves = {(n, k): v for n, p in enumerate(step.probes) for k, v in p.leaves.items()}
    found = {place for _, place in reached([loss], leaves)}
    found |= {place for p in step.probes for place in p.returned}
    found |= {place for p in step.probes for place in p.kept if place not in p.leaves}
    if step.reads is not None:
        found |= {place for _, place in step.reads.needed}
    if not found:
        msg = "the loss does not depend on it"
        raise NotCacheableError(msg)
    return frozenset(found)


def learn_padding(cut: Cut, probes: Sequence[Pass], prefixes: Prefixes) -> None:
    """Whether padded positions matter to the loss; if they do, padding is kept from now on."""
    if not cut.trims or cut.needed is None:
        return
    for probe in probes:
        if probe.rows.real is None or not probe.rows.is_padded:
            continue
        needed = [leaf for place, leaf in probe.leaves.items() if place in cut.needed]
        if padding_matters(needed, probe.rows.real):
            prefixes.keep_padding(cut)
            return
        cut.padding_proven = True
