"""In which order a model calls its units, and inside which module's forward."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from torch import nn

from lightning_attnbal.apply.cache._patches import Patches
from lightning_attnbal.apply.cache._reasons import NotCacheableError

_MOST = 0.95  # of the skippable parameters; a norm or two may be left out for a deeper host


@dataclass(frozen=True, slots=True)
class Visit:
    """One call of a unit's module.

    Args:
        module: qualified name.
        inside: the calls that were open around it, outermost first: (name, number of the call).
    """

    module: str
    inside: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Skippable:
    """What a prefix need not run.

    Args:
        host: the deepest module whose forward calls all of it.
        calls: the modules in the order in which one call of the host calls them.
        pure: modules around calls of the prefix and of nothing else (an encoder, say).
    """

    host: str
    calls: tuple[str, ...]
    pure: frozenset[str]


@dataclass
class CallOrder:
    """Notes the calls of all units during one forward pass; `stop` removes the hooks.

    Args:
        model: the model.
        modules: unit by module name, for all units.
    """

    model: nn.Module
    modules: Mapping[str, str]
    visits: list[Visit] = field(default_factory=list)
    _open: list[tuple[str, int]] = field(default_factory=list)
    _patches: Patches = field(default_factory=Patches)
    _number: int = 0

    def start(self) -> None:
        """Hook every unit's module and all that is around them; they run uncompiled."""
        around = {name for module in self.modules for name in _ancestors(module)}
        for name, module in self.model.named_modules():
            if name in around:
                self._patches.around(module, partial(self._enter, name), self._leave)
            if name in self.modules:
                self._patches.before(module, partial(self._visit, name))
            if name in around or name in self.modules:
                self._patches.run_uncompiled(module)

    def stop(self) -> None:
        """Remove the hooks."""
        self._patches.undo()

    def _enter(self, name: str, *_: object) -> None:
        self._number += 1
        self._open.append((name, self._number))

    def _leave(self, *_: object) -> None:
        if self._open:
            self._open.pop()

    def _visit(self, name: str, *_: object) -> None:
        self.visits.append(Visit(name, tuple(self._open)))


def find_skippable(
    visits: Sequence[Visit],
    units: Mapping[str, str],
    cached: Collection[str],
    weights: Mapping[str, int],
) -> Skippable:
    """What may be skipped when the units `cached` are.

    A call is skipped if it comes before the first call of another unit within the same call of the
    host. The host is the deepest module around (nearly) everything that could be skipped: the
    deeper it is, the less its arguments hold beside what the prefix reads.

    Args:
        visits: one forward pass.
        units: unit by module name.
        cached: names of the units.
        weights: numbers of parameters by module; modules that are not in it (embedding tables cost
            next to nothing) are always run.

    Raises:
        NotCacheableError: nothing to skip, or no module's forward is around all of it.
    """
    best: Skippable | None = None
    pure, most = _pure(visits, units, cached), 0
    reason = "its layers are not called within one module's forward"
    hosts = {name for visit in visits for name, _ in visit.inside}
    for host in sorted(hosts, key=_depth):
        runs = set(_runs(visits, host, units, cached, weights))
        calls = runs.pop() if len(runs) == 1 else ()
        if not calls:
            reason = "nothing that costs much runs before the first trained layer"
            continue
        weight = sum(weights[name] for name in calls)
        if weight >= _MOST * most:
            best, most = Skippable(host, calls, pure), max(most, weight)
    if best is None:
        raise NotCacheableError(reason)
    return best


def _depth(name: str) -> int:
    return len(name.split(".")) if name else 0


def _runs(
    visits: Sequence[Visit],
    host: str,
    units: Mapping[str, str],
    cached: Collection[str],
    weights: Mapping[str, int],
) -> Iterator[tuple[str, ...]]:
    """Per call of the host, the calls at its start that can be skipped."""
    by_call: dict[int, list[Visit]] = {}
    for visit in visits:
        for name, number in visit.inside:
            if name == host:
                by_call.setdefault(number, []).append(visit)
    for inside in by_call.values():
        names = []
        for visit in inside:
            if units[visit.module] not in cached:
                break
            if visit.module in weights:
                names.append(visit.module)
        yield tuple(names)


def _pure(
    visits: Sequence[Visit], units: Mapping[str, str], cached: Collection[str]
) -> frozenset[str]:
    """Modules whose every call is around calls of cached units only."""
    around: dict[str, set[str]] = {}
    for visit in visits:
        for name, _ in visit.inside:
            around.setdefault(name, set()).add(units[visit.module])
    return frozenset(name for name, found in around.items() if found <= set(cached))


def _ancestors(name: str) -> Iterator[str]:
    """The names of all modules around a module, the model itself ("") included."""
    while name:
        name = name.rpartition(".")[0]
        yield name
