"""Put a plan into effect on a model, and take it back."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Literal, Self

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from lightning_attnbal.apply._checkpointing import why_not_freezable
from lightning_attnbal.apply._cut import cut
from lightning_attnbal.apply._detach import Branches, find_branches
from lightning_attnbal.apply._fingerprint import fingerprint, violations
from lightning_attnbal.apply._parts import listed, stochastic_modules, trainable_parameters
from lightning_attnbal.apply.cache import PrefixCache
from lightning_attnbal.core import LevelKind, Plan, Unit, UnsupportedModelError, check_choice

_SUPPORTED = (
    LevelKind.CACHED,
    LevelKind.FROZEN,
    LevelKind.DETACHED,
    LevelKind.LOCAL,
    LevelKind.FULL,
)
_CUT = (LevelKind.DETACHED, LevelKind.LOCAL)


class PlanApplier:
    """Sets every unit of a model to its level, and back.

    | level    | parameters | gradient of the unit's input | dropout, batch statistics |
    |----------|------------|------------------------------|---------------------------|
    | cached   | fixed      | none                         | off (eval mode)           |
    | frozen   | fixed      | if something below trains    | off (eval mode)           |
    | detached | fixed      | along the skip path only     | off (eval mode)           |
    | local    | trained    | along the skip path only     | as the user set them      |
    | full     | trained    | if something below trains    | as the user set them      |

    Only what could be trained when the applier was made is ever trained; parameters are known by
    identity. At level `local` each branch learns from the gradient that its output receives along
    the skip path; what a later branch of the same unit would send back to an earlier one is cut.

    Args:
        model: the model to change, in place.
        units: its units; parameters and modules that are in none are left alone.
        moments: whether to `keep` or `drop` the optimizer's state of a parameter when it freezes.
            Kept moments are stale at a thaw but spare it a cold start; dropping frees memory.
        cache: needed for plans that cache a prefix; it wants to be told of steps as they happen.
        forward: runs the model once on a real batch, to find residual branches on true inputs; see
            `why_not_detachable`. Called at most once, when branches are first asked for.

    Raises:
        ValueError: `moments` is not known, two units share a name, or a unit names what is not in
            the model.

    Example:
        >>> import torch
        >>> from lightning_attnbal.core import Plan, Unit, UnitKind
        >>> model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
        >>> units = [
        ...     Unit(n, int(n), UnitKind.BLOCK, (n,), (f"{n}.weight", f"{n}.bias"), 0) for n in "01"
        ... ]
        >>> with PlanApplier(model, units) as applier:
        ...     applier.apply(Plan({"0": "frozen", "1": "full"}))
        ...     [p.requires_grad for p in model.parameters()]
        [False, False, True, True]
        >>> [p.requires_grad for p in model.parameters()]
        [True, True, True, True]
    """

    def __init__(
        self,
        model: nn.Module,
        units: Sequence[Unit],
        *,
        moments: Literal["keep", "drop"] = "keep",
        cache: PrefixCache | None = None,
        forward: Callable[[], object] | None = None,
    ) -> None:
        self._drops_moments = check_choice("moments", moments, ("keep", "drop")) == "drop"
        self._model = model
        self._units = {unit.name: unit for unit in units}
        if len(self._units) < len(units):
            names = ", ".join(unit.name for unit in units)
            msg = f"Expected `units` to have unique names, but got {names}."
            raise ValueError(msg)
        self._trainable = {unit.name: trainable_parameters(model, unit) for unit in units}
        self._stochastic = {unit.name: stochastic_modules(model, unit) for unit in units}
        self._modes = {module: module.training for module in model.modules()}
        self._forward = forward
        self._cache = cache
        self._branches: dict[str, Branches | str] = {}
        self._handles: list[RemovableHandle] = []
        self._cut: frozenset[str] = frozenset()
        self._still: set[nn.Module] = set()
        self._current: Plan | None = None

    @property
    def current(self) -> Plan | None:
        """The plan in effect, None before the first `apply` and after `undo`."""
        return self._current

    def trained_parameters(self) -> tuple[nn.Parameter, ...]:
        """What the current plan trains, or could be trained before the first; forward order."""
        names = self._units if self._current is None else self._current.trained
        return tuple(p for name in self._units if name in names for p in self._trainable[name])

    def why_not_detachable(self, unit: str) -> str | None:
        """Why the branches of the unit cannot be cut, or None; see the function of this name."""
        found = self._find_branches()[unit]
        return found if isinstance(found, str) else None

    def apply(
        self,
        plan: Plan,
        optimizers: Sequence[torch.optim.Optimizer] = (),
        *,
        keeps_gradients: bool = False,
    ) -> None:
        """Set every unit to its level in `plan`; applying a plan twice is applying it once.

        Args:
            plan: a level for each unit.
            optimizers: those that hold the parameters; needed only to drop moments.
            keeps_gradients: whether gradients that wait for the optimizer's step stay: those of
                another task's batches that the same step accumulates.

        Raises:
            ValueError: `plan` names an unknown unit, lacks one, or trains nothing.
            UnsupportedModelError: a level cannot be set on its unit.

        After an error the model is as it was before the call.
        """
        self._check(plan)
        self._set_cuts(frozenset(name for name in plan if plan[name].kind in _CUT))
        for name, parameters in self._trainable.items():
            if plan[name].is_trained:
                for parameter in parameters:
                    parameter.requires_grad_(True)
            else:
                self._freeze(parameters, optimizers, keeps_gradients=keeps_gradients)
        fixed = [name for name in plan if not plan[name].is_trained]
        still = {module for name in fixed for module in self._stochastic[name]}
        self._restore_modes(self._still - still)
        self._still = still
        self._current = plan
        self.refresh()
        if self._cache is not None:
            names = [name for name in plan if plan[name].kind is LevelKind.CACHED]
            if names != list(self._cache.wanted):
                self._cache.engage(names)

    @contextmanager
    def without_cuts(self) -> Iterator[None]:
        """Branches uncut inside the block, for whoever measures what the whole model costs."""
        cuts = self._cut
        self._set_cuts(frozenset())
        try:
            yield
        finally:
            self._set_cuts(cuts)

    def refresh(self) -> None:
        """Put what is not trained back into eval mode, after somebody called `model.train()`."""
        for module in self._still:
            module.training = False

    def undo(self) -> None:
        """Trainability, training flags and hooks as they were when the applier was made."""
        self._set_cuts(frozenset())
        if self._cache is not None:
            self._cache.close()
        for parameters in self._trainable.values():
            for parameter in parameters:
                parameter.requires_grad_(True)
        self._restore_modes(self._still)
        self._still = set()
        self._current = None

    def fingerprint(self) -> Mapping[str, int]:
        """Checksum of the bits of each parameter and buffer, for `verify` after some steps."""
        return fingerprint(self._model)

    def verify(self, before: Mapping[str, int]) -> tuple[str, ...]:
        """What contradicts the current plan since `before`, one sentence each; empty: nothing.

        A step with a learning rate of zero (the first of a warm-up) moves nothing: verify later.
        """
        if self._current is None:
            return ()
        return violations(self._current, self._units.values(), before, self.fingerprint())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.undo()

    def _check(self, plan: Plan) -> None:
        unknown, missing = plan.keys() - self._units.keys(), self._units.keys() - plan.keys()
        if unknown or missing:
            msg = (
                "Expected `plan` to have one level for each unit, "
                f"but it names unknown units: {listed(unknown)}; and lacks: {listed(missing)}."
            )
            raise ValueError(msg)
        if not any(self._trainable[name] for name in plan.trained):
            msg = f"Expected `plan` to train at least one trainable parameter, but got {plan}."
            raise ValueError(msg)
        for name, level in plan.items():
            if level.kind not in _SUPPORTED:
                known = ", ".join(_SUPPORTED)
                msg = f"Expected the level of unit {name!r} to be one of {known}, but got {level}."
                raise UnsupportedModelError(msg)
            if level.kind in _CUT:
                self._cuttable(name)
        self._check_cached(plan)
        reason = why_not_freezable(self._model)
        if reason is not None and len(plan.trained) < len(plan):
            raise UnsupportedModelError(reason)

    def _check_cached(self, plan: Plan) -> None:
        names = list(plan)
        cached = [name for name in names if plan[name].kind is LevelKind.CACHED]
        if cached and self._cache is None:
            msg = (
                f"Expected a `cache` for a plan that caches {listed(cached)}, but got None. Give "
                "the applier a PrefixCache."
            )
            raise UnsupportedModelError(msg)
        if cached != names[: len(cached)]:
            msg = f"Expected the cached units of `plan` to be its lowest ones, but got {plan}."
            raise ValueError(msg)

    def _cuttable(self, name: str) -> Branches:
        branches = self._find_branches()[name]
        if isinstance(branches, str):
            msg = f"Cannot detach unit {name!r}: {branches}. Use level frozen or full."
            raise UnsupportedModelError(msg)
        return branches

    def _find_branches(self) -> dict[str, Branches | str]:
        if not self._branches:
            self._branches = find_branches(self._model, self._units.values(), self._forward)
        return self._branches

    def _freeze(
        self,
        parameters: Iterable[nn.Parameter],
        optimizers: Sequence[torch.optim.Optimizer],
        *,
        keeps_gradients: bool,
    ) -> None:
        for parameter in parameters:
            if parameter.requires_grad and self._drops_moments:
                for optimizer in optimizers:
                    optimizer.state.pop(parameter, None)
            parameter.requires_grad_(False)
            if not keeps_gradients:
                parameter.grad = None  # with a stale or zero one, momentum and decay still move it

    def _set_cuts(self, names: frozenset[str]) -> None:
        if names == self._cut:
            return
        for handle in self._handles:
            handle.remove()
        blocks = [block for name in names for block in self._cuttable(name)]
        self._handles = [handle for block in blocks for handle in cut(*block)]
        self._cut = names
        if "torch._dynamo" in sys.modules:
            torch.compiler.reset()  # compiled code does not notice that hooks came or went

    def _restore_modes(self, modules: Iterable[nn.Module]) -> None:
        for module in modules:
            module.training = self._modes[module]
