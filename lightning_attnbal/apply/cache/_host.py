"""Calls of the host: which rows are read, which are run, and what is learned from them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from lightning_attnbal.apply.cache._cut import Cut
from lightning_attnbal.apply.cache._identity import Rows, identify
from lightning_attnbal.apply.cache._pass import Pass
from lightning_attnbal.apply.cache._proof import has_nan, reached, snapshot, tensors_in, unharmed
from lightning_attnbal.apply.cache._reasons import NotCacheableError
from lightning_attnbal.apply.cache._repeats import Repeats
from lightning_attnbal.apply.cache._shelf import Shelf, Trial
from lightning_attnbal.apply.cache._step import Step

_SMALL = 2**16  # numbers of a buffer that is kept while rows are read


@dataclass(frozen=True)
class Call:
    """A call of the host.

    Args:
        host: the module.
        forward: its own forward.
        args: positional arguments.
        kwargs: keyword arguments.
    """

    host: nn.Module
    forward: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    def rows(self, cut: Cut) -> Rows:
        """Its samples."""
        rows = identify(
            self.forward,
            self.args,
            self.kwargs,
            trim=cut.trims is not False,
            shared=cut.shared,
            setting=cut.settings.digest(),
        )
        cut.shared |= rows.shared
        return rows


class HostRunner:
    """Runs the host with a pass in force.

    Args:
        shelf: where rows are.
        repeats: whether samples come back.
        is_timed: whether a prefix is refused that takes longer to read than to compute.

    Attributes:
        step: of the training step at hand.
    """

    def __init__(self, shelf: Shelf, repeats: Repeats, *, is_timed: bool = False) -> None:
        self.step = Step()
        self._shelf, self._repeats, self._is_timed = shelf, repeats, is_timed
        self._pass: Pass | None = None

    @property
    def is_running(self) -> bool:
        """Whether a call of the host is open."""
        return self._pass is not None

    def is_in_prefix(self) -> bool:
        """Whether a call of the host is open that has not left the prefix."""
        return self._pass is not None and not self._pass.is_over

    def leave_prefix(self, *_: object) -> None:
        """A unit outside the prefix is called: nothing after it is skipped."""
        if self._pass is not None:
            self._pass.abandon()

    def skip(self, name: str, forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """A module of the prefix is called."""
        current = self._pass
        if current is None or current.is_over:
            return forward(*args, **kwargs)
        return current.call(name, forward, args, kwargs)

    def run(
        self, cut: Cut, call: Call, below: Sequence[Cut]
    ) -> tuple[Any, NotCacheableError | None]:
        """What the host returns, and why its prefix cannot be cached, if that has shown.

        Raises:
            NotCacheableError: nothing was returned; to be run again, without cache.
        """
        start = time.perf_counter()
        rows = call.rows(cut)
        self._repeats.count(rows.keys, (cut.skippable.host, cut.trims is False))
        current, trial = self._shelf.plan(cut, rows, below)
        tried = None
        if not self.step.may_run_twice:
            trial = None
        if trial is not None:
            with unharmed(call.host):
                tried = self._try(trial, cut, call)
        if current.runs_all:
            result = self._compute(current, cut, call)
        else:
            result = self._read(current, cut, call)
        seconds = time.perf_counter() - start
        self.step.rows += rows.count
        self.step.computed += len(current.missing)
        self.step.done[rows.keys] = current
        self.step.keys.append(rows.keys)
        self._shelf.tally(rows.count, rows.count - len(current.missing))
        try:
            self._finish(cut, current, trial, tried, result)
            is_whole = len(current.missing) in {0, rows.count}
            if self._is_timed and trial is None and not current.probes and is_whole:
                cut.speed.note(seconds, rows=rows.count, is_read=not current.missing)
        except NotCacheableError as reason:
            return result, reason
        return result, None

    def run_again(self, cut: Cut, call: Call) -> Any:
        """The host is called in the backward pass: checkpointed, it must do what it did before."""
        try:
            again = self._plan_again(cut, call)
        except NotCacheableError:
            again = None
        if again is None:
            return call.forward(*call.args, **call.kwargs)
        return self._under(again, cut, call)

    def _plan_again(self, cut: Cut, call: Call) -> Pass | None:
        rows = call.rows(cut)
        before = self.step.done.get(rows.keys)
        if before is not None and before.probes:
            return Pass(rows, cut.skippable.calls, range(rows.count), probes=True)
        if before is not None and not before.missing:
            return self._shelf.again(cut, rows)
        return None

    def _compute(self, current: Pass, cut: Cut, call: Call) -> Any:
        current.watch(cut.state.marks)
        reads = self.step.reads if current.probes else None
        if reads is not None:
            current.reads, current.number = reads, len(self.step.probes)
            reads.own(current.rows.tensors)
            reads.is_between = self.is_in_prefix
        before = cut.settings.now()
        result = self._under(current, cut, call)
        cut.settings.leave_out_changes(before)
        return result

    def _read(self, current: Pass, cut: Cut, call: Call) -> Any:
        """Run on read rows, once.

        Raises:
            NotCacheableError: it failed; buffers are as they were before.
        """
        restore = snapshot(call.host, most=_SMALL)
        try:
            result = self._on_read_rows(current, cut, call)
        except NotCacheableError:
            restore()
            raise
        if not cut.gives_nan and has_nan(result):
            restore()
            msg = (
                "on read rows the model returned NaN: it reads what the prefix computed on its way"
            )
            raise NotCacheableError(msg)
        return result

    def _try(self, trial: Trial, cut: Cut, call: Call) -> Any:
        """Run on read rows, to compare.

        Raises:
            NotCacheableError: it failed; the rows' own prefix is to blame.
        """
        try:
            return self._on_read_rows(trial.tried, cut, call)
        except NotCacheableError as error:
            error.cut = trial.cut
            raise

    def _on_read_rows(self, current: Pass, cut: Cut, call: Call) -> Any:
        """What fails may work without.

        Raises:
            NotCacheableError: it failed.
        """
        try:
            return self._under(current, cut, call)
        except NotCacheableError:
            raise
        except Exception as error:
            msg = f"the model failed on read rows ({type(error).__name__}: {error})"
            raise NotCacheableError(msg) from error

    def _under(self, current: Pass, cut: Cut, call: Call) -> Any:
        """Run the host with `current` in force."""
        mode, is_pure = call.host.training, cut.skippable.host in cut.skippable.pure
        call.host.training = mode and not is_pure
        self._pass = current
        try:
            return call.forward(*call.args, **call.kwargs)
        finally:
            self._pass = None
            call.host.training = mode

    def _finish(self, cut: Cut, done: Pass, trial: Trial | None, tried: Any, result: Any) -> None:
        """The host has returned: store, or compare, what was computed."""
        if done.reason is not None:
            raise NotCacheableError(done.reason)
        if done.change is not None:
            cut.note_change(done.change)
        elif done.is_complete:
            cut.gives_nan |= done.runs_all and has_nan(result)
            if trial is not None:
                self._shelf.compare(cut, done, trial)
                self._shelf.compare_results(trial, tried, result)
                trial.cut.proven |= trial.kinds
            self._keep(cut, done, result)

    def _keep(self, cut: Cut, done: Pass, result: Any) -> None:
        """Store what was computed, or keep it until it is known what to store."""
        if done.probes:
            done.returned = frozenset(reached(tensors_in(result), done.leaves))
            self.step.probes.append(done)
        elif done.missing:
            knows_forms = done.below.until > 0 or not done.runs_all
            forms = done.read.forms if knows_forms else cut.learn_forms(done.rows, done.forms)
            if forms is not None:
                self._shelf.put(cut, done, forms)
