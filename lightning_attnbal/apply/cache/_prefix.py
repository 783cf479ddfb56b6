"""Run a frozen prefix once per sample, and read what it gave from then on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lightning_attnbal.apply.cache._counts import CacheCounts
from lightning_attnbal.apply.cache._cut import Cut
from lightning_attnbal.apply.cache._host import Call, HostRunner, Step
from lightning_attnbal.apply.cache._learning import learn, padding_shows
from lightning_attnbal.apply.cache._order import CallOrder, Visit
from lightning_attnbal.apply.cache._patches import Patches
from lightning_attnbal.apply.cache._proof import clear_nan, random_state, set_random_state
from lightning_attnbal.apply.cache._prefixes import Prefixes
from lightning_attnbal.apply.cache._reasons import NotCacheableError
from lightning_attnbal.apply.cache._repeats import Repeats
from lightning_attnbal.apply.cache._shelf import Shelf
from lightning_attnbal.apply.cache._store import ActivationStore
from lightning_attnbal.apply.cache._trace import Reads
from lightning_attnbal.core import Unit, check_integer


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
        self._shelf = Shelf(store, check_integer("audit_every", audit_every, low=1))
        self._repeats = Repeats()
        self._runner = HostRunner(self._shelf, self._repeats)
        self._model = model
        self._prefixes = Prefixes(model, units, self._shelf)
        self._order: CallOrder | None = None
        self._visits: tuple[Visit, ...] | None = None
        self._wanted: tuple[str, ...] = ()
        self._cut: Cut | None = None
        self._patches = Patches()
        self._reads: Reads | None = None
        self._is_forward, self._is_backward = False, False

    # -- which prefix ------------------------------------------------------------------------

    @property
    def store(self) -> ActivationStore:
        """Where rows are kept."""
        return self._shelf.store

    @property
    def refused(self) -> Mapping[tuple[str, ...], str]:
        """Prefixes that cannot be cached, and why."""
        return self._prefixes.refusals.reasons

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
        return self._prefixes.num_rows(names)

    @property
    def num_step_rows(self) -> int:
        """Samples that went through the engaged prefix in this step."""
        return self._runner.step.rows

    @property
    def engaged(self) -> tuple[str, ...]:
        """The units that are cached now."""
        cut = self._cut
        return () if cut is None or self._prefixes.is_refused(cut) else cut.names

    @property
    def computed_share(self) -> float:
        """Share of the rows of this step that went through the prefix, in [0, 1]."""
        step = self._runner.step
        return step.computed / step.rows if step.rows else 1.0

    @property
    def num_trials(self) -> int:
        """How often the host was run twice in this step."""
        return self._runner.step.trials

    def why_not(self, names: Sequence[str]) -> str | None:
        """Why this prefix cannot be cached, or None as far as is known."""
        return self._prefixes.refusals.why_not(names)

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
        """An epoch of training starts; weights are compared number by number."""
        self._repeats.begin_epoch()
        if self._cut is not None:
            self._cut.is_doubtful = True

    def begin_step(self) -> None:
        """A training step starts; the first one shows in which order the units are called."""
        self._end_step()
        self._is_forward = True
        self._repeats.begin_step()
        if self._visits is None:
            self._order = CallOrder(self._model, self._prefixes.finder.unit_of)
            self._order.start()
        elif self._cut is not None and self._cut.needed is None and self.engaged:
            self._reads = self._runner.step.reads = Reads()
            self._reads.start()  # until the loss is known

    def end_forward(self, loss: Tensor | None) -> None:
        """The loss is known; what it depends on tells what leaves the prefix."""
        self._is_forward, self._is_backward = False, loss is not None
        visits = self._stop_watching()
        if visits:
            self._visits = visits
            self._install()
        cut, step = self._cut, self._runner.step
        if cut is None or loss is None:
            step.probes.clear()
            return
        try:
            step.check_loss(loss)
            if step.probes and not self._prefixes.is_refused(cut):
                learn(cut, step, loss, self._shelf)
        except NotCacheableError as reason:
            self._prefixes.refuse(cut, reason)
            step.probes.clear()

    def end_backward(self) -> None:
        """Gradients are there: they tell whether padded positions matter."""
        cut, step = self._cut, self._runner.step
        probes, step.probes, step.done = step.probes, [], {}
        self._is_backward = False
        if step.is_spoilt:
            step.is_spoilt = False
            clear_nan(p.grad for p in self._model.parameters())
        if cut is None or not cut.trims or cut.needed is None:
            return
        shows = padding_shows(cut, probes)
        if shows:
            self._prefixes.keep_padding(cut)
        elif shows is not None:
            cut.padding_proven = True

    def _end_step(self) -> None:
        self._stop_watching()
        self._is_forward, self._is_backward = False, False
        self._runner.step = Step()

    def _stop_watching(self) -> tuple[Visit, ...]:
        """Remove what watches a step; the calls of units so far, if they were watched."""
        if self._reads is not None:
            self._reads.stop()
            self._reads = None
        if self._order is None:
            return ()
        order, self._order = self._order, None
        order.stop()
        return tuple(order.visits)

    # -- on the model ------------------------------------------------------------------------

    def _install(self) -> None:
        """Put the engaged prefix's modules behind the cache."""
        assert self._visits is not None
        self._cut = cut = self._prefixes.get(self._wanted, self._visits)
        if cut is not None:
            self._prefixes.finder.patch(cut, self._patches, self._runner, self._run_host)

    def _release(self) -> None:
        self._patches.undo()
        self._cut = None
        self._wanted = ()

    def _run_host(
        self, host: nn.Module, forward: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> Any:
        """The host is called: in a step, on behalf of the cache."""
        cut, call = self._cut, Call(host, forward, args, kwargs)
        if cut is None or self._runner.is_running or not torch.is_grad_enabled():
            return forward(*args, **kwargs)
        if self._is_backward:
            return self._runner.run_again(cut, call)
        if not self._is_forward or self._prefixes.is_refused(cut):
            return forward(*args, **kwargs)
        before = random_state()
        try:
            result, reason = self._runner.run(cut, call, self._prefixes.below(cut))
        except NotCacheableError as error:
            self._prefixes.refuse(cut, error)
            set_random_state(before)
            return forward(*args, **kwargs)
        if reason is not None:
            self._prefixes.refuse(cut, reason)
        return result
