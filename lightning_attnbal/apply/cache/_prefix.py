"""Run a frozen prefix once per sample, and read what it gave from then on."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from lightning_attnbal.apply.cache._cut import Cut, tensors_of
from lightning_attnbal.apply.cache._identity import Rows, identify
from lightning_attnbal.apply.cache._order import CallOrder, Visit, find_skippable
from lightning_attnbal.apply.cache._pass import Pass, Place
from lightning_attnbal.apply.cache._patches import Patches
from lightning_attnbal.apply.cache._proof import (
    padding_matters,
    random_state,
    reached,
    set_random_state,
    tensors_in,
    unharmed,
)
from lightning_attnbal.apply.cache._reasons import NotCacheableError
from lightning_attnbal.apply.cache._repeats import Repeats
from lightning_attnbal.apply.cache._shelf import CacheCounts, Shelf
from lightning_attnbal.apply.cache._store import ActivationStore
from lightning_attnbal.core import Unit, check_integer

_log = logging.getLogger(__name__)


class PrefixCache:
    """Makes the lowest units of a model, frozen, run once per sample.

    While units are engaged, their modules return stored tensors for samples that went through
    before, within `forward` of the deepest module around them (the host), whose arguments say which
    sample is which. The model's code is unchanged and runs as ever; what no unit outside the prefix
    reads is NaN. Outside training steps, and for samples not seen yet, everything is computed.

    Nothing is taken for granted: what leaves the prefix is read off the autograd graph of a step;
    that padding does not matter, off its gradients; that rows do not depend on their company or
    their padding, that the weights are the same and that nothing random is at work, by computing
    stored rows again: in each new situation, and every `audit_every` calls. What fails is refused
    for good, with the reason, and training goes on with computed values.

    Args:
        model: the model in training.
        units: its units, forward order.
        store: where rows are kept.
        audit_every: calls between two audits, in [1, inf).
    """

    def __init__(
        self,
        model: nn.Module,
        units: Sequence[Unit],
        store: ActivationStore,
        *,
        audit_every: int = 100,
    ) -> None:
        self.refused: dict[tuple[str, ...], str] = {}
        self._shelf = Shelf(store, check_integer("audit_every", audit_every, low=1))
        self._model = model
        self._units = {unit.name: unit for unit in units}
        self._unit_of = {module: unit.name for unit in units for module in unit.modules}
        self._weights = {
            name: sum(p.numel() for p in model.get_submodule(name).parameters())
            for name in self._unit_of
            if not isinstance(model.get_submodule(name), nn.Embedding)
        }
        self._order: CallOrder | None = None
        self._visits: tuple[Visit, ...] | None = None
        self._wanted: tuple[str, ...] = ()
        self._cuts: dict[tuple[str, ...], Cut] = {}
        self._cut: Cut | None = None
        self._patches = Patches()
        self._repeats = Repeats()
        self._is_step = False
        self._pass: Pass | None = None
        self._probes: list[Pass] = []
        self._step_rows, self._step_computed, self._step_trials = 0, 0, 0

    # -- which prefix ------------------------------------------------------------------------

    @property
    def store(self) -> ActivationStore:
        """Where rows are kept."""
        return self._shelf.store

    @property
    def counts(self) -> CacheCounts:
        """What was read, computed and compared so far."""
        return self._shelf.counts

    @property
    def wanted(self) -> tuple[str, ...]:
        """The units that `engage` named last."""
        return self._wanted

    def num_rows(self, names: Sequence[str]) -> int:
        """How many samples are stored for a prefix, with its weights as they are now."""
        cut = self._cuts.get(tuple(names))
        if cut is None or not cut.space or cut.current_marks() != cut.marks:
            return 0
        return len(self.store.space(cut.space))

    @property
    def num_step_rows(self) -> int:
        """Samples that went through the engaged prefix in this step."""
        return self._step_rows

    @property
    def engaged(self) -> tuple[str, ...]:
        """The units that are cached now."""
        return () if self._cut is None or self._is_refused(self._cut) else self._cut.names

    @property
    def computed_share(self) -> float:
        """Share of the rows of this step that went through the prefix, in [0, 1]."""
        return self._step_computed / self._step_rows if self._step_rows else 1.0

    @property
    def num_trials(self) -> int:
        """How often the host was run twice in this step."""
        return self._step_trials

    def why_not(self, names: Sequence[str]) -> str | None:
        """Why this prefix cannot be cached, or None as far as is known."""
        for refused, reason in self.refused.items():
            if set(refused) <= set(names):
                return reason
        return None

    def engage(self, names: Sequence[str]) -> None:
        """Cache these units, the lowest ones in forward order; none: stop caching.

        What is stored for other prefixes is kept while their weights stay as they are.
        """
        self._release()
        self._wanted = tuple(names)
        if self._visits is not None:
            self._install()

    def close(self) -> None:
        """Leave no trace on the model; the store is the caller's to close. Safe to call twice."""
        self._release()
        self._stop_watching()
        self._end_step()

    # -- one step ----------------------------------------------------------------------------

    def begin_epoch(self) -> None:
        """An epoch of training starts."""
        self._repeats.begin_epoch()

    def begin_step(self) -> None:
        """A training step starts; the first one shows in which order the units are called."""
        self._end_step()
        self._is_step = True
        self._step_rows, self._step_computed, self._step_trials = 0, 0, 0
        self._repeats.begin_step(is_engaged=self._cut is not None)
        if self._visits is None:
            self._order = CallOrder(self._model, self._unit_of)
            self._order.start()

    def end_forward(self, loss: Tensor | None) -> None:
        """The loss is known; what it depends on tells what leaves the prefix."""
        self._is_step, self._pass = False, None
        if self._order is not None:
            visits = tuple(self._order.visits)
            self._stop_watching()
            self._visits = visits
            self._install()
        cut = self._cut
        if cut is None or loss is None or self._is_refused(cut):
            self._probes.clear()
        if cut is None or not self._probes or loss is None:
            return
        try:
            self._learn(cut, loss)
        except NotCacheableError as reason:
            self._refuse(cut, str(reason))

    def end_backward(self) -> None:
        """Gradients are there: they tell whether padded positions matter."""
        probes, self._probes = self._probes, []
        cut = self._cut
        if cut is None or not cut.trims or cut.needed is None:
            return
        for probe in probes:
            if probe.rows.real is None or not probe.rows.is_padded:
                continue
            needed = [leaf for place, leaf in probe.leaves.items() if place in cut.needed]
            if padding_matters(needed, probe.rows.real):
                self._shelf.forget(cut)
                cut.trims = False
                return
            cut.padding_proven = True

    def _learn(self, cut: Cut, loss: Tensor) -> None:
        """What leaves the prefix, and store the rows of this step."""
        needed = self._needed(loss)
        if cut.needed is None:
            cut.needed = needed
        elif not needed <= cut.needed:
            msg = "the loss depends on other layers' outputs than it did before"
            raise NotCacheableError(msg)
        for probe in self._probes:
            forms = cut.learn_forms(probe.rows, probe.forms)
            if forms is None:
                continue
            if cut.trims is None:
                cut.trims = cut.may_trim(probe.rows, forms)
            if probe.rows.real is None or cut.trims:
                self._shelf.put(cut, probe, forms)

    def _needed(self, loss: Tensor) -> frozenset[Place]:
        """Tensors the loss depends on, and those that are no floats, whose use leaves no trace."""
        leaves = {(n, k): v for n, p in enumerate(self._probes) for k, v in p.leaves.items()}
        found = {place for _, place in reached([loss], leaves)}
        found |= {place for p in self._probes for place in p.returned}
        found |= {place for p in self._probes for place in p.kept if place not in p.leaves}
        if not found:
            msg = "the loss does not depend on it"
            raise NotCacheableError(msg)
        return frozenset(found)

    def _end_step(self) -> None:
        self._is_step, self._pass = False, None
        self._probes.clear()

    def _stop_watching(self) -> None:
        if self._order is not None:
            self._order.stop()
            self._order = None

    # -- on the model ------------------------------------------------------------------------

    def _install(self) -> None:
        """Put the engaged prefix's modules behind the cache."""
        if not self._wanted or self.why_not(self._wanted) is not None:
            return
        cut = self._cuts.get(self._wanted)
        if cut is None:
            try:
                cut = self._new_cut(self._wanted)
            except NotCacheableError as reason:
                self._note_refusal(self._wanted, str(reason))
                return
        cut.marks = ()  # weights may have moved while nobody looked
        self._cuts[self._wanted] = self._cut = cut
        for name in cut.skippable.calls:
            self._patches.replace(self._model.get_submodule(name), partial(self._call, name))
        host = self._model.get_submodule(cut.skippable.host)
        self._patches.replace(host, partial(self._run_host, host))
        inside = tuple(f"{name}." for name in self._unit_of)
        for name, module in self._model.named_modules():
            if name in self._unit_of:
                if self._unit_of[name] not in cut.names:
                    self._patches.before(module, self._leave_prefix)
            elif not name.startswith(inside) and _is_between(name, module, cut):
                self._patches.eval_while(module, self._is_in_prefix)

    def _new_cut(self, names: tuple[str, ...]) -> Cut:
        assert self._visits is not None
        skippable = find_skippable(self._visits, self._unit_of, names, self._weights)
        units = [self._units[name] for name in names]
        modules = {name: self._model.get_submodule(name) for name in skippable.calls}
        return Cut(names, skippable, modules, tensors_of(self._model, units))

    def _release(self) -> None:
        self._patches.undo()
        self._cut = None
        self._wanted = ()

    def _is_refused(self, cut: Cut) -> bool:
        return cut.names in self.refused

    def _refuse(self, cut: Cut, reason: str) -> None:
        self._note_refusal(cut.names, reason)
        self._shelf.forget(cut)
        self._cuts.pop(cut.names, None)
        self._probes.clear()

    def _note_refusal(self, names: tuple[str, ...], reason: str) -> None:
        _log.warning("Not cached: %s … %s, because %s.", names[0], names[-1], reason)
        self.refused[names] = reason

    def _is_in_prefix(self) -> bool:
        return self._pass is not None and not self._pass.is_over

    # -- calls -------------------------------------------------------------------------------

    def _leave_prefix(self, *_: object) -> None:
        """A unit outside the prefix is called: nothing after it is skipped."""
        if self._pass is not None:
            self._pass.abandon()

    def _call(self, name: str, forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """A module of the prefix is called."""
        current = self._pass
        if current is None or current.is_over:
            return forward(*args, **kwargs)
        return current.call(name, forward, args, kwargs)

    def _run_host(
        self, host: nn.Module, forward: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> Any:
        """The host is called: find out which rows are known, and run the rest."""
        cut = self._cut
        usable = self._is_step and self._pass is None and torch.is_grad_enabled()
        if cut is None or not usable or self._is_refused(cut):
            return forward(*args, **kwargs)
        before = random_state()
        try:
            return self._run(cut, host, forward, args, kwargs)
        except NotCacheableError as reason:
            self._refuse(cut, str(reason))
        set_random_state(before)
        return forward(*args, **kwargs)

    def _run(
        self,
        cut: Cut,
        host: nn.Module,
        forward: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        """Raises NotCacheableError only while nothing was changed that running again would miss."""
        why = cut.why_unsteady()
        if why is not None:
            raise NotCacheableError(why)
        rows = identify(forward, args, kwargs, trim=cut.trims is not False)
        self._repeats.count(rows, cut.seen)
        novelty = cut.novelty(rows)
        current, stored = self._shelf.plan(cut, rows, self._below(cut))
        tried = None
        if stored is not None and novelty:
            with unharmed(host):
                tried = self._under(stored, cut, forward, args, kwargs)
            self._step_trials += 1
        if current.runs_all:
            current.watch(cut.current_marks, is_random_watched=current.probes or stored is not None)
        result = self._under(current, cut, forward, args, kwargs)
        self._step_rows += rows.count
        self._step_computed += len(current.missing)
        try:
            self._finish(cut, current, stored, result)
            if tried is not None:
                self._shelf.compare_results(rows, tried, result)
                cut.proven |= novelty
        except NotCacheableError as reason:
            self._refuse(cut, str(reason))
        return result

    def _below(self, cut: Cut) -> list[Cut]:
        """Shallower prefixes of the same host whose rows may still be there, deepest first."""
        found = [
            other
            for other in self._cuts.values()
            if set(other.names) < set(cut.names)
            and other.skippable.host == cut.skippable.host
            and other.needed is not None
        ]
        return sorted(found, key=lambda other: -len(other.names))

    def _under(
        self,
        current: Pass,
        cut: Cut,
        forward: Callable[..., Any],
        args: Sequence[Any],
        kwargs: dict[str, Any],
    ) -> Any:
        """Run the host with `current` in force; what fails with read rows may work without."""
        host = self._model.get_submodule(cut.skippable.host)
        mode, is_pure = host.training, cut.skippable.host in cut.skippable.pure
        host.training = mode and not is_pure
        self._pass = current
        try:
            return forward(*args, **kwargs)
        except Exception as error:
            if current.runs_all:
                raise
            msg = f"the model failed on read rows ({type(error).__name__}: {error})"
            raise NotCacheableError(msg) from error
        finally:
            self._pass = None
            host.training = mode

    def _finish(self, cut: Cut, done: Pass, stored: Pass | None, result: Any) -> None:
        """The host has returned: store, or compare, what was computed."""
        self._shelf.tally(done.rows.count, done.rows.count - len(done.missing))
        if done.reason is not None:
            raise NotCacheableError(done.reason)
        if not done.is_complete:
            return
        if done.probes:
            done.returned = frozenset(reached(tensors_in(result), done.leaves))
            self._probes.append(done)
        elif stored is not None:
            self._shelf.compare(cut, done)
        elif done.missing:
            knows_forms = done.below.until > 0 or not done.runs_all
            forms = done.read.forms if knows_forms else cut.learn_forms(done.rows, done.forms)
            if forms is not None:
                self._shelf.put(cut, done, forms)


def _is_between(name: str, module: nn.Module, cut: Cut) -> bool:
    """Whether a module outside of all units may belong to the prefix: its mode follows the calls."""
    return not any(True for _ in module.children()) or name in cut.skippable.pure
