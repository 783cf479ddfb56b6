"""Rows of one prefix in the store: which calls can be read, what is put, what is compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from lightning_attnbal.apply.cache._counts import CacheCounts
from lightning_attnbal.apply.cache._cut import Cut
from lightning_attnbal.apply.cache._identity import Rows
from lightning_attnbal.apply.cache._outputs import Known, Leaf, Result, row
from lightning_attnbal.apply.cache._padding import spans
from lightning_attnbal.apply.cache._pass import Pass
from lightning_attnbal.apply.cache._proof import (
    largest_error,
    outputs_differ,
    tensors_in,
    tolerance,
)
from lightning_attnbal.apply.cache._reasons import NotCacheableError, PaddingMattersError
from lightning_attnbal.apply.cache._space import Space
from lightning_attnbal.apply.cache._store import ActivationStore


@dataclass(frozen=True)
class Trial:
    """Rows are to be read in a way that was not shown to be sound yet: read, and compared.

    Args:
        tried: the pass that reads them.
        cut: whose rows they are.
        kinds: what is new about it, see `Cut.novelty`.
    """

    tried: Pass
    cut: Cut
    kinds: set[str]


class Shelf:
    """Between passes and the store.

    Args:
        store: where rows are kept.
        audit_every: calls between two audits.
    """

    def __init__(self, store: ActivationStore, audit_every: int) -> None:
        self.store = store
        self.counts = CacheCounts()
        self._audit_every = audit_every
        self._since_audit = 0

    # -- reading -----------------------------------------------------------------------------

    def plan(self, cut: Cut, rows: Rows, below: Sequence[Cut]) -> tuple[Pass, Trial | None]:
        """The pass that computes what must be, and what to try if there is something to compare.

        Raises:
            NotCacheableError: the prefix is trained, not in eval mode, or changes all the time.
        """
        self._open(cut)
        self.store.prefer([cut.space])
        every = range(rows.count)
        whole = Pass(rows, cut.skippable.calls, every, wanted=cut.needed)
        whole.probes = cut.needed is None or (rows.is_padded and not cut.padding_proven)
        forms = cut.forms.get(rows.layout)
        if cut.needed is None or forms is None or whole.probes:
            return whole, None
        whole.read = Known(0, forms)
        missing = self._space(cut).missing(rows.keys)
        if len(missing) == rows.count:
            return self._from_below(whole, below)
        if missing and not cut.can_pick(rows):
            return whole, None
        known, lost = self._read(cut, rows, forms, missing)
        missing = sorted({*missing, *lost})
        if len(missing) == rows.count or (lost and not cut.can_pick(rows)):
            return whole, None
        part = Pass(rows, cut.skippable.calls, missing, read=known, wanted=cut.needed)
        self._since_audit += 1
        novel = cut.novelty(rows, missing)
        if novel or self._since_audit >= self._audit_every:
            return whole, Trial(part, cut, novel)
        return self._from_below(part, below) if missing else (part, None)

    def again(self, cut: Cut, rows: Rows) -> Pass | None:
        """A pass that reads all rows, if they are there."""
        forms = cut.forms.get(rows.layout)
        if forms is None or not cut.space or self._space(cut).missing(rows.keys):
            return None
        known, lost = self._read(cut, rows, forms, [])
        return None if lost else Pass(rows, cut.skippable.calls, [], read=known)

    def _from_below(self, todo: Pass, below: Sequence[Cut]) -> tuple[Pass, Trial | None]:
        """Start where a shallower prefix ends that has missing rows; the first times, to compare.

        Of several the one that spares the most units of rows, the first of equals.
        """
        rows, best, stored = todo.rows, None, list[int]()
        for cut in below:
            found = self._stored(cut, todo)
            if len(found) * len(cut.names) > len(stored) * (len(best.names) if best else 0):
                best, stored = cut, found
        if best is None:
            return todo, None
        forms, unread = best.forms[rows.layout], _others(rows, stored)
        known, lost = self._read(best, rows, forms, unread)
        unread = sorted({*unread, *lost})
        bottom = [i for i in todo.missing if i in set(unread)]
        if len(unread) == rows.count or (bottom and not best.can_pick(rows)):
            return todo, None
        kinds = best.novelty(rows, unread)
        if not bottom:
            kinds -= {"part"}  # nothing of the shallower prefix is run
        shorter = Pass(
            rows,
            todo.calls,
            todo.missing,
            read=todo.read.copied() if kinds else todo.read,
            below=replace(known, until=len(best.skippable.calls)),
            bottom=bottom,
            wanted=todo.wanted,
        )
        return (todo, Trial(shorter, best, kinds)) if kinds else (shorter, None)

    def _stored(self, cut: Cut, todo: Pass) -> list[int]:
        """Positions of the rows to be run that a prefix of theirs has and that are still valid."""
        calls, layout = cut.skippable.calls, todo.rows.layout
        if tuple(todo.calls[: len(calls)]) != calls or layout not in cut.forms:
            return []
        self._open(cut)
        if layout not in cut.forms or not cut.space:  # its weights are others now
            return []
        gone = set(self._space(cut).missing(todo.rows.keys))
        return [i for i in todo.missing if i not in gone]

    def _read(
        self, cut: Cut, rows: Rows, forms: Sequence[Result], missing: Sequence[int]
    ) -> tuple[Known, list[int]]:
        """The stored rows in batch tensors, and the positions of rows that could not be read."""
        gone, places = set(missing), sorted(cut.needed or ())
        positions = [i for i in range(rows.count) if i not in gone]
        kept = spans(rows.real if cut.trims else None, rows.count)
        leaves = [forms[call].leaves[position] for call, position in places]
        batch = [_blank(leaf, rows, trims=bool(cut.trims)) for leaf in leaves]
        gathered: list[tuple[Tensor, Tensor, Tensor]] = []

        def target(tensor: Tensor, leaf: Leaf, i: int) -> Tensor:
            span = kept[i]
            if leaf.axis is None:
                return tensor if i == positions[0] else torch.empty_like(tensor)
            one = tensor.select(leaf.axis, i)
            if not isinstance(span, Tensor):
                return one if span is None else one[span]
            rest = torch.empty((len(span), *one.shape[1:]), dtype=one.dtype, device=one.device)
            gathered.append((one, span.to(one.device), rest))
            return rest

        out = [
            [target(t, leaf, i) for t, leaf in zip(batch, leaves, strict=True)] for i in positions
        ]
        try:
            lost = self._space(cut).read([rows.keys[i] for i in positions], out)
        except ValueError as error:
            msg = f"what is stored has another form ({error})"
            raise (PaddingMattersError if cut.trims else NotCacheableError)(msg) from error
        for one, span, values in gathered:
            one[span] = values
        known = Known(len(forms), forms, dict(zip(places, batch, strict=True)))
        return known, [positions[i] for i in lost]

    # -- writing -----------------------------------------------------------------------------

    def put(self, cut: Cut, done: Pass, forms: Sequence[Result]) -> None:
        """Store the rows of a pass that were run."""
        self._open(cut)
        keys = [done.rows.keys[i] for i in done.missing]
        stored = self._space(cut).missing(keys)
        try:
            self._space(cut).put(keys, self._pack(cut, done, forms))
        except (TypeError, ValueError) as error:
            msg = f"what it returns cannot be stored ({error})"
            raise NotCacheableError(msg) from error
        cut.note(done.rows, [done.missing[i] for i in stored])

    def _pack(self, cut: Cut, done: Pass, forms: Sequence[Result]) -> list[list[Tensor]]:
        """The kept tensors of a pass, row by row, without padding."""
        kept = spans(done.rows.real if cut.trims else None, done.rows.count)
        places = sorted(cut.needed or ())
        return [
            [
                row(done.kept[call, at], forms[call].leaves[at].axis, n, kept[i])
                for call, at in places
            ]
            for n, i in enumerate(done.missing)
        ]

    def compare(self, cut: Cut, computed: Pass, trial: Trial) -> None:
        """Hold computed rows against those that were read, or follow from what was read.

        Raises:
            NotCacheableError: a row differs by more than rounding.
        """
        rows, forms = computed.rows, cut.forms[computed.rows.layout]
        if trial.cut is cut:  # read once more: the model may have written to what it was given
            known, lost = self._read(cut, rows, forms, trial.tried.missing)
            kept, gone, slack = dict(known.tensors), {*trial.tried.missing, *lost}, 1
        else:
            kept, gone, slack = trial.tried.kept, set(), _AMPLIFIED
        found, stored = (
            self._pack(cut, p, forms) for p in (computed, replace(computed, kept=kept))
        )
        errors = [
            largest_error(a, b)
            for n, i in enumerate(computed.missing)
            if i not in gone
            for a, b in zip(found[n], stored[n], strict=True)
        ]
        worst = max(errors, default=0.0)
        self._since_audit = 0
        top = max(self.counts.largest_error, worst)
        self.counts = replace(self.counts, audits=self.counts.audits + 1, largest_error=top)
        most = tolerance(self.store.dtype, computed.kept.values(), rows.autocast)
        if worst > slack * most:
            kinds = trial.kinds - {"again"}
            why = "; ".join(_WHY[kind] for kind in sorted(kinds)) or _SAME
            msg = f"a stored row differs from the computed one by {worst:.1e}: {why}"
            error = PaddingMattersError if "repadded" in kinds else NotCacheableError
            raise error(msg, trial.cut)

    def compare_results(self, trial: Trial, read: Any, computed: Any) -> None:
        """Hold what the host returned on read rows against what it returned on computed ones.

        Raises:
            NotCacheableError: they differ by more than rounding.
        """
        rows = trial.tried.rows
        self.counts = replace(self.counts, trials=self.counts.trials + 1)
        worst = outputs_differ(read, computed, rows.real)
        most = tolerance(self.store.dtype, tensors_in(computed), rows.autocast)
        if worst > _AMPLIFIED * most:
            msg = f"on read rows the model returned something else (by {worst:.1e})"
            raise (PaddingMattersError if rows.is_padded else NotCacheableError)(msg, trial.cut)

    def forget(self, cut: Cut) -> None:
        """Drop the rows of a prefix."""
        if cut.space:
            self.store.drop(cut.space)
        cut.forget()

    def tally(self, rows: int, read: int) -> None:
        """Count the samples of a pass."""
        counts = self.counts
        self.counts = replace(counts, rows=counts.rows + rows, rows_read=counts.rows_read + read)

    # -- spaces ------------------------------------------------------------------------------

    def _open(self, cut: Cut) -> None:
        """See whether the weights are those of the stored rows; if not, start anew."""
        marks = cut.state.marks()
        if cut.is_doubtful or marks != cut.marks:
            cut.check()
            version = cut.state.digest()
            if version != cut.version:
                self.forget(cut)
                cut.renew(version)
            cut.marks, cut.is_doubtful = marks, False
        if not cut.space and cut.needed is not None:
            cut.space = cut.name_of_space(cut.version)
            self.store.space(cut.space)

    def _space(self, cut: Cut) -> Space:
        return self.store.space(cut.space)


_AMPLIFIED = 10  # layers above may amplify what differs
_SAME = "something in it is random, or its weights were changed behind PyTorch's back"
_WHY = {
    "mixed": "perhaps a row depends on the others of its batch",
    "repadded": "perhaps a row depends on its padding",
    "earlier": "perhaps the code has changed since it was stored",
    "part": "perhaps a row depends on the others of its batch",
}


def _others(rows: Rows, positions: Sequence[int]) -> list[int]:
    """All positions but these."""
    return sorted(set(range(rows.count)) - set(positions))


def _blank(leaf: Leaf, rows: Rows, *, trims: bool) -> Tensor:
    """An empty batch tensor; zero where there is padding."""
    shape = list(leaf.full_shape(rows.count))
    if not trims:
        return torch.empty(shape, dtype=leaf.dtype, device=leaf.device)
    return torch.zeros(shape, dtype=leaf.dtype, device=leaf.device)
