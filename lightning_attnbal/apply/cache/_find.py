"""From unit names to a prefix that can be cached."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from torch import nn

from lightning_attnbal.apply.cache._cut import Cut
from lightning_attnbal.apply.cache._host import HostRunner
from lightning_attnbal.apply.cache._order import Visit, find_skippable
from lightning_attnbal.apply.cache._patches import Patches, is_compiled
from lightning_attnbal.apply.cache._reasons import NotCacheableError
from lightning_attnbal.apply.cache._state import Settings, State
from lightning_attnbal.core import Unit


class CutFinder:
    """Makes cuts of a model.

    Args:
        model: the model.
        units: its units.

    Attributes:
        unit_of: name of the unit by name of the module.
    """

    def __init__(self, model: nn.Module, units: Sequence[Unit]) -> None:
        self.unit_of = {module: unit.name for unit in units for module in unit.modules}
        self._model = model
        self._units = {unit.name: unit for unit in units}
        self._weights = {
            name: sum(p.numel() for p in model.get_submodule(name).parameters())
            for name in self.unit_of
            if not isinstance(model.get_submodule(name), nn.Embedding)
        }

    def find(self, names: tuple[str, ...], visits: Sequence[Visit]) -> Cut:
        """The prefix of these units, as one forward pass called them.

        Raises:
            NotCacheableError: nothing to skip, no module's forward is around all of it, or that
                runs within compiled code.
        """
        skippable = find_skippable(visits, self.unit_of, names, self._weights)
        parts = skippable.host.split(".") if skippable.host else []
        for above in (".".join(parts[:i]) for i in range(len(parts))):
            if is_compiled(self._model.get_submodule(above)):
                msg = f"module {above!r} around it is compiled; compile its blocks instead"
                raise NotCacheableError(msg)
        units = [self._units[name] for name in names]
        modules = {m: self._model.get_submodule(m) for unit in units for m in unit.modules}
        state = State(modules, list(self._loose(units)))
        return Cut(names, skippable, modules, state, Settings(self._around(skippable.host)))

    def patch(
        self, cut: Cut, patches: Patches, runner: HostRunner, run_host: Callable[..., Any]
    ) -> None:
        """Put the modules of a prefix behind the cache.

        Args:
            cut: the prefix.
            patches: takes the changes back.
            runner: skips modules.
            run_host: `run_host(host, forward, *args, **kwargs)` is called for the host's forward.
        """
        for name in cut.skippable.calls:
            patches.replace(self._model.get_submodule(name), partial(runner.skip, name))
        host = self._model.get_submodule(cut.skippable.host)
        patches.replace(host, partial(run_host, host))
        for name, unit in self.unit_of.items():
            module = self._model.get_submodule(name)
            if unit not in cut.names and not is_compiled(module):
                patches.before(module, runner.leave_prefix)  # would be compiled, for each state
        inside = tuple(f"{name}." for name in self.unit_of)
        for name, module in self._model.named_modules():
            is_free = name not in self.unit_of and not name.startswith(inside)
            if is_free and _is_between(name, module, cut):
                patches.eval_while(module, runner.is_in_prefix)

    def _loose(self, units: Sequence[Unit]) -> Iterator[tuple[nn.Module, str]]:
        """Parameters of units that are in none of their modules."""
        for unit in units:
            inside = tuple(f"{module}." for module in unit.modules)
            for name in unit.parameters:
                if not name.startswith(inside):
                    owner, _, attribute = name.rpartition(".")
                    yield self._model.get_submodule(owner), attribute

    def _around(self, host: str) -> Mapping[str, nn.Module]:
        """The host and what is in it but in no unit."""
        inside = tuple(f"{name}." for name in self.unit_of)
        return {
            name: module
            for name, module in self._model.get_submodule(host).named_modules(prefix=host)
            if name not in self.unit_of and not name.startswith(inside)
        }


def _is_between(name: str, module: nn.Module, cut: Cut) -> bool:
    """Whether the mode of a module in no unit follows the calls: layers, and what is all prefix."""
    return name in cut.skippable.pure or not any(True for _ in module.children())
