"""Forwards replaced and hooks set on a model, all of which can be taken back."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from torch import nn
from torch.utils.hooks import RemovableHandle


class Replaced:
    """Runs `replacement(forward, *args, **kwargs)`; copied or pickled it is the plain `forward`.

    Args:
        replacement: what runs instead.
        forward: the module's own forward, bound.
    """

    def __init__(self, replacement: Callable[..., Any], forward: Callable[..., Any]) -> None:
        self.replacement = replacement
        self.forward = forward

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.replacement(self.forward, *args, **kwargs)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return copy.deepcopy(self.forward, memo)

    def __reduce__(self) -> Any:
        return _same, (self.forward,)


class Hook:
    """A hook; copied or pickled it is one that does nothing."""

    def __init__(self, hook: Callable[..., None]) -> None:
        self._hook = hook

    def __call__(self, *args: Any) -> None:
        self._hook(*args)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return _nothing

    def __reduce__(self) -> Any:
        return _make_nothing, ()


def _same(forward: Any) -> Any:
    return forward


def _nothing(*_: Any) -> None:
    """The hook of a copy."""


def _make_nothing() -> Callable[..., None]:
    return _nothing


def compiled_call(module: nn.Module) -> Any:
    """What `module.compile()` has set, None if it was not called. The name is PyTorch's own."""
    return module._compiled_call_impl


def set_compiled_call(module: nn.Module, call: Any) -> None:
    """Have calls of `module` go through `call`; None: through its `forward`, uncompiled."""
    module._compiled_call_impl = call


def is_compiled(module: nn.Module) -> bool:
    """Whether calls of a module run compiled code; `torch.compile` wraps, `.compile()` does not."""
    return compiled_call(module) is not None or hasattr(module, "_orig_mod")


class Patches:
    """Changes to modules; `undo` takes back all of them.

    While a change is in force, copies and pickles of the model are of the model without it.

    Example:
        >>> import torch
        >>> patches, model = Patches(), nn.Linear(1, 1)
        >>> patches.replace(model, lambda forward, x: 2 * forward(x))
        >>> x, copied = torch.ones(1), copy.deepcopy(model)
        >>> bool(model(x) == 2 * copied(x))
        True
        >>> patches.undo()
        >>> bool(model(x) == copied(x)), "forward" in vars(model)
        (True, False)
    """

    def __init__(self) -> None:
        self._forwards: list[tuple[nn.Module, Any]] = []
        self._compiled: list[tuple[nn.Module, Any]] = []
        self._handles: list[RemovableHandle] = []

    def replace(self, module: nn.Module, replacement: Callable[..., Any]) -> None:
        """Have `replacement(forward, *args, **kwargs)` run in the place of `module.forward`.

        A module that was compiled in place runs its replacement uncompiled.
        """
        self.run_uncompiled(module)
        self._forwards.append((module, vars(module).get("forward")))
        module.forward = Replaced(replacement, module.forward)

    def run_uncompiled(self, module: nn.Module) -> None:
        """Have a module that was compiled in place run as if it was not."""
        self._compiled.append((module, compiled_call(module)))
        set_compiled_call(module, None)

    def before(self, module: nn.Module, hook: Callable[..., None]) -> None:
        """Call `hook(module, args)` before each forward of `module`."""
        self._handles.append(module.register_forward_pre_hook(Hook(hook)))

    def around(
        self, module: nn.Module, enter: Callable[..., None], leave: Callable[..., None]
    ) -> None:
        """Call `enter` before each forward of `module` and `leave` after it, also if it raises."""
        self.before(module, enter)
        self._handles.append(module.register_forward_hook(Hook(leave), always_call=True))

    def eval_while(self, module: nn.Module, condition: Callable[[], bool]) -> None:
        """Have `module` in eval mode during each of its calls that starts while `condition()`."""
        changed: list[bool] = []

        def enter(*_: object) -> None:
            changed.append(module.training and condition())
            if changed[-1]:
                module.training = False

        def leave(*_: object) -> None:
            if changed and changed.pop():
                module.training = True

        self.around(module, enter, leave)

    def undo(self) -> None:
        """The model as it was."""
        for module, forward in reversed(self._forwards):
            del module.forward
            if forward is not None:
                module.forward = forward
        for module, call in reversed(self._compiled):
            set_compiled_call(module, call)
        for handle in self._handles:
            handle.remove()
        for changes in (self._forwards, self._compiled, self._handles):
            changes.clear()
