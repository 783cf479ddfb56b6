"""Run a frozen prefix once per sample, and read what it gave from then on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lightning_attnbal.apply.cache._counts import CacheCounts
from lightning_attnbal.apply.cache._cut import Cut
from lightning_attnbal.apply.cache._host import Call, HostRunner
from lightning_attnbal.apply.cache._learning import learn, learn_padding
from lightning_attnbal.apply.cache._order import Visit
from lightning_attnbal.apply.cache._patches import Patches
from lightning_attnbal.apply.cache._prefixes import Prefixes
from lightning_attnbal.apply.cache._proof import clear_nan, random_state, set_random_state
from lightning_attnbal.apply.cache._reasons import NotCacheableError
from lightning_attnbal.apply.cache._repeats import Repeats
from lightning_attnbal.apply.cache._shelf import Shelf
from lightning_attnbal.apply.cache._step import Step
from lightning_attnbal.apply.cache._store import ActivationStore
from lightning_attnbal.apply.cache._watch import StepWatch
from lightning_attnbal.core import Unit, check_integer


class PrefixCache:
    """Makes the lowest units of a model, frozen, run once per sample.

    While units are engaged, their modules return stored tensors for samples that went through
    before, within `forward` of the deepest module around them (the host), whose arguments say which
    sample is which. The model's code is unchanged and runs as ever; what nothing outside the prefix
    reads is NaN. Outside training steps, and for samples not seen yet, everything is computed.

    Nothing is taken for granted. What leaves the prefix is found by following its results through
    one step. That padding does not matter is read off the gradients. That rows do not depend on
    their company or padding, and that nothing in the prefix is random or has a state, is shown by
    computing stored rows again and running the host both ways: before rows are first read in a new
    kind of situation, and every `audit_every` calls. What fails is refused for good, with the
    reason, and training goes on with computed values, as it would have without a cache.

    A row is read only while all that the prefix computes with is as it was: each call compares
    versions, addresses and a few numbers of all tensors, plain attributes, inner hooks and parts;
    each epoch, every number. Not seen at once, only by an audit or in the next epoch: single
    numbers written behind PyTorch's back (through `.data` or numpy). Not seen but by audits:
    changes inside of objects that are neither tensors, modules nor plain values, and code that
    changes. Hooks on the units' own modules run, on NaN where nobody else reads a result.

    Copies and pickles of the model are of the plain model. Call `begin_step` and `end_forward`
    around the forward pass of each training step, `end_backward` after its backward pass.

    Args:
        model: the model in training.
        units: its units, forward order.
        store: where rows are kept.
        audit_every: calls between two audits, in [1, inf).
        is_timed: refuse a prefix that takes longer to read than to compute; left out where the same
            seed must give the same run on any machine.

    Example:
        >>> from lightning_attnbal.core import UnitKind
        >>> model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 1))
        >>> units = [
        ...     Unit(n, int(n), UnitKind.BLOCK, (n,), (f"{n}.weight", f"{n}.bias"), 0) for n in "01"
        ... ]
        >>> _ = model[0].eval().requires_grad_(False)
        >>> with ActivationStore(ram="1MiB") as store:
        ...     cache = PrefixCache(model, units, store)
        ...     cache.engage(["0"])
        ...     for _ in range(5):  # watched, followed, compared, and then read
        ...         cache.begin_step()
        ...         loss = model(torch.eye(4)).square().mean()
        ...         cache.end_forward(loss)
        ...         loss.backward()
        ...         cache.end_backward()
        ...     cache.close()
        >>> cache.counts.rows, cache.counts.rows_read
        (16, 8)
    """

    def __init__(
        self,
        model: nn.Module,
        units: Sequence[Unit],
        store: ActivationStore,
        *,
        audit_every: int = 100,
        is_timed: bool = False,
    ) -> None:
        self._shelf = Shelf(store, check_integer("audit_every", audit_every, low=1))
        self._repeats = Repeats()
        self._runner = HostRunner(self._shelf, self._repeats, is_timed=is_timed)
        self._model = model
        self._prefixes = Prefixes(model, units, self._shelf)
        self._watch = StepWatch(model, self._prefixes.finder.unit_of)
        self._visits: tuple[Visit, ...] | None = None
        self._wanted: tuple[str, ...] = ()
        self._cut: Cut | None = None
        self._patches = Patches()
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

    def order_to_list(self) -> list[tuple[str, list[tuple[str, int]]]]:
        """In which order the units were called, as plain data for a checkpoint."""
        return [(visit.module, list(visit.inside)) for visit in self._visits or ()]

    def order_from_list(self, order: Sequence[tuple[str, Sequence[tuple[str, int]]]]) -> None:
        """What `order_to_list` gave: the first step need not be watched again."""
        inside = [(name, tuple((host, int(n)) for host, n in around)) for name, around in order]
        self._visits = tuple(Visit(*one) for one in inside) or None

    def step_keys(self) -> list[tuple[bytes, ...]]:
        """By call of the host in this step, the keys of its samples."""
        return list(self._runner.step.keys)

    def stored(self, keys: Sequence[bytes]) -> list[bytes]:
        """Those of these samples that are stored for the engaged prefix."""
        if self._cut is None or not self._cut.space:
            return []
        missing = set(self.store.space(self._cut.space).missing(keys))
        return [key for i, key in enumerate(keys) if i not in missing]

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
        self._end_step()

    # -- one step ----------------------------------------------------------------------------

    def begin_epoch(self) -> None:
        """An epoch of training starts; weights are compared number by number."""
        self._repeats.begin_epoch()
        if self._cut is not None:
            self._cut.is_doubtful = True

    def begin_step(self, *, may_run_twice: bool = True) -> None:
        """A training step starts; the first one shows in which order the units are called.

        Args:
            may_run_twice: whether the host may be run a second time, to compare; not while others
                count its calls. Rows that would have to be compared are computed then.
        """
        self._end_step()
        self._runner.step.may_run_twice = may_run_twice
        self._is_forward = True
        self._repeats.begin_step()
        if self._visits is None:
            self._watch.start_order()
        elif self._cut is not None and self._cut.needed is None and self.engaged:
            self._runner.step.reads = self._watch.start_reads()

    def end_forward(self, loss: Tensor | None) -> None:
        """The loss is known; what it depends on tells what leaves the prefix."""
        self._is_forward, self._is_backward = False, loss is not None
        visits = self._watch.stop()
        if visits:
            self._visits = visits
            self._install()
        step = self._runner.step
        if self._cut is not None and loss is not None:
            learn(self._cut, step, loss, self._shelf, self._prefixes)
        else:
            step.probes.clear()

    def end_backward(self) -> None:
        """Gradients are there: they tell whether padded positions matter."""
        step, self._is_backward = self._runner.step, False
        if step.is_spoilt:
            clear_nan(p.grad for p in self._model.parameters())
        if self._cut is not None:
            learn_padding(self._cut, step.probes, self._prefixes)
        step.probes, step.done, step.is_spoilt = [], {}, False

    def _end_step(self) -> None:
        self._watch.stop()
        self._is_forward, self._is_backward = False, False
        self._runner.step = Step()

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
            self._prefixes.refuse(error.cut or cut, error)
            set_random_state(before)
            return forward(*args, **kwargs)
        if reason is not None:
            self._prefixes.refuse(reason.cut or cut, reason)
        return result
