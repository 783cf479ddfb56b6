"""One call of the host module while its prefix is cached: which rows are run, which are read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree  # torch has no public tree utilities yet

from lightning_attnbal.apply.cache._identity import Rows
from lightning_attnbal.apply.cache._outputs import Known, Leaf, Place, Result, pick
from lightning_attnbal.apply.cache._proof import leaves_of, random_state, tensors_in
from lightning_attnbal.apply.cache._reasons import NotCacheableError
from lightning_attnbal.apply.cache._trace import Reads


@dataclass
class Pass:
    """State of one call of the host.

    Args:
        rows: the samples.
        calls: names of the modules to skip, in order.
        missing: positions of the rows to be run; all rows are run if it is as long as `rows`.
        read: what the store had for the other rows, all calls.
        below: what the store of a shallower prefix had for missing rows.
        bottom: with `below`, positions of the missing rows that it had nothing for.
        wanted: what to keep for the store; None: everything (it is not known yet what is needed).
        probes: whether gradients are to tell what is needed, and of which positions.
        reads: with `probes`, what follows the results; None: only gradients tell.

    Attributes:
        forms: what the calls returned, where all rows were run.
        kept: tensors to store, of the missing rows.
        leaves: with `probes`, the tensors that get a gradient.
        returned: with `probes`, those that what the host returned depends on.
        count: calls so far.
        reason: why it cannot be cached, if it is random or changes its input.
        change: what the prefix changed of itself, if it did.
        number: with `reads`, which of the passes of the step this is.
    """

    rows: Rows
    calls: Sequence[str]
    missing: Sequence[int]
    read: Known = field(default_factory=Known)
    below: Known = field(default_factory=Known)
    bottom: Sequence[int] = ()
    wanted: frozenset[Place] | None = None
    probes: bool = False
    reads: Reads | None = None
    forms: list[Result] = field(default_factory=list)
    kept: dict[Place, Tensor] = field(default_factory=dict)
    leaves: dict[Place, Tensor] = field(default_factory=dict)
    returned: frozenset[Place] = frozenset()
    count: int = 0
    reason: str | None = None
    change: str | None = None
    number: int = 0
    _is_abandoned: bool = False
    _marks: Callable[[], Any] | None = None
    _before: tuple[Any, ...] = ()

    @property
    def runs_all(self) -> bool:
        """Whether every row is run."""
        return len(self.missing) == self.rows.count

    @property
    def is_over(self) -> bool:
        """Whether nothing more is skipped."""
        return self._is_abandoned or self.count == len(self.calls)

    @property
    def is_complete(self) -> bool:
        """Whether all of the prefix was called, and nothing else in between."""
        return self.count == len(self.calls) and not self._is_abandoned

    def watch(self, marks: Callable[[], Any]) -> None:
        """Until the prefix is over, see whether it changes something or draws random numbers.

        Args:
            marks: changes with what the prefix computes with.
        """
        self._marks, self._before = marks, (marks(), self._versions(), random_state())

    def _versions(self) -> list[int]:
        return [x._version for x in self.rows.tensors]

    def _look(self) -> None:
        """The prefix is over: did it leave everything alone?"""
        if self._marks is None:
            return
        marks, versions, random = self._before
        if self._versions() != versions:
            self.reason = "its input is changed in place"
        elif random_state() != random:
            self.reason = "random numbers are drawn in it"
        elif self._marks() != marks:
            self.change = "it changes its own weights, buffers or attributes as it runs"

    def abandon(self) -> None:
        """Something that is not of the prefix is called.

        Raises:
            NotCacheableError: rows were read that may now be missing.
        """
        if self.is_over:
            return
        if self.below.until or not self.runs_all:
            msg = f"{self.calls[self.count]} was not called this time"
            raise NotCacheableError(msg)
        self._is_abandoned = True

    def call(
        self,
        name: str,
        forward: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        """What the module returns: run, read, or both.

        Raises:
            NotCacheableError: another module was expected, and rows were read.
        """
        number = self.count
        if self.is_over or self.calls[number] != name:
            self.abandon()
            return forward(*args, **kwargs)
        with self.reads.paused() if self.reads is not None else nullcontext():
            self._check_gradients((args, kwargs))
            self.count += 1
            result = self._result(number, forward, args, kwargs)
            if self.is_complete:
                self._look()
        return result

    def _check_gradients(self, arguments: Any) -> None:
        """What is trained below must get its gradient.

        Raises:
            NotCacheableError: a gradient would have to go through the prefix.
        """
        wanting = [x for x in tensors_in(arguments) if x.requires_grad]
        if not wanting or not torch.is_grad_enabled():
            return
        if not self.probes or leaves_of(wanting) - {id(x) for x in self.leaves.values()}:
            msg = f"something below {self.calls[self.count]} is trained, which needs a gradient"
            raise NotCacheableError(msg)

    def _result(
        self,
        number: int,
        forward: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        if not self.missing:
            return self._fill(number, self.read.forms[number])
        is_below = number < self.below.until
        run = self.bottom if is_below else self.missing
        if not run:
            return self._fill(number, self.below.forms[number])
        if len(run) < self.rows.count:
            args, kwargs = pick((args, kwargs), torch.tensor(run), self.rows.count)
        with torch.no_grad():
            result = forward(*args, **kwargs)
        leaves, structure = pytree.tree_flatten(result)
        if is_below:
            return self._spread(number, leaves, self.below.forms[number], run)
        self._keep(number, leaves)
        if self.runs_all:
            self.forms.append(Result.of(result))
            return pytree.tree_unflatten(self._watched(number, leaves), structure)
        return self._spread(number, leaves, self.read.forms[number], run)

    def _fill(self, number: int, form: Result) -> Any:
        """Read tensors in place, of whatever source, and NaN elsewhere."""
        known: dict[int, Tensor] = {}
        for position, leaf in enumerate(form.leaves):
            if isinstance(leaf, Leaf):
                tensor = self._merged((number, position), leaf)
                if tensor is not None:
                    known[position] = tensor
        return form.fill(self.rows.count, known)

    def _merged(self, place: Place, leaf: Leaf) -> Tensor | None:
        """One tensor from the stores of this prefix and of a shallower one."""
        ours, theirs = self.read.tensors.get(place), self.below.tensors.get(place)
        if theirs is None:
            return ours
        self._keep_missing(place, leaf, theirs)
        if ours is None or leaf.axis is None:
            return theirs
        index = torch.tensor(self.missing, device=ours.device)
        return ours.index_copy_(leaf.axis, index, theirs.index_select(leaf.axis, index))

    def _keep(self, number: int, leaves: Sequence[Any]) -> None:
        """Copy what may be stored, before something later changes it in place."""
        for position, leaf in enumerate(leaves):
            place = (number, position)
            if isinstance(leaf, Tensor) and (self.wanted is None or place in self.wanted):
                self.kept[place] = leaf.detach().clone()

    def _watched(self, number: int, leaves: Sequence[Any]) -> list[Any]:
        """With `probes`, leaves that will have a gradient if the loss depends on them."""
        if not self.probes:
            return list(leaves)
        watched = []
        for position, leaf in enumerate(leaves):
            if isinstance(leaf, Tensor) and leaf.is_floating_point():
                watch = leaf.detach().requires_grad_()
                self.leaves[number, position] = watch
                leaf = watch.clone()  # what follows may write in place, which a leaf forbids
            if isinstance(leaf, Tensor) and self.reads is not None:
                self.reads.follow({(self.number, (number, position)): leaf})
            watched.append(leaf)
        return watched

    def _keep_missing(self, place: Place, leaf: Leaf, whole: Tensor) -> None:
        """Copy the missing rows of a tensor of all rows, if they may be stored."""
        if self.wanted is None or place in self.wanted:
            self.kept[place] = _some(whole, leaf.axis, self.missing)

    def _spread(
        self, number: int, leaves: Sequence[Any], form: Result, positions: Sequence[int]
    ) -> Any:
        """The result for the whole batch from that of the rows that were run."""
        known: dict[int, Tensor] = {}
        if len(form.leaves) != len(leaves):
            msg = f"{self.calls[number]} returns something else for some of the samples"
            raise NotCacheableError(msg)
        for position, (leaf, tensor) in enumerate(zip(form.leaves, leaves, strict=True)):
            if not isinstance(leaf, Leaf):
                continue
            place, whole = (number, position), tensor
            if leaf.axis is not None:
                there = self._merged(place, leaf)
                whole = leaf.nothing(self.rows.count) if there is None else there
                index = torch.tensor(positions, device=tensor.device)
                whole = whole.index_copy_(leaf.axis, index, tensor)
            known[position] = whole
            if number < self.below.until:
                self._keep_missing(place, leaf, whole)
        return form.fill(self.rows.count, known)


def _some(tensor: Tensor, axis: int | None, positions: Sequence[int]) -> Tensor:
    if axis is None:
        return tensor.clone()
    return tensor.index_select(axis, torch.tensor(positions, device=tensor.device))
