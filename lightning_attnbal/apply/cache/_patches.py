"""Forwards replaced and hooks set on a model, all of which can be taken back."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn
from torch.utils.hooks import RemovableHandle


class Patches:
    """Changes to modules; `undo` takes back all of them."""

    def __init__(self) -> None:
        self._forwards: list[tuple[nn.Module, Any, Any]] = []
        self._handles: list[RemovableHandle] = []

    def replace(self, module: nn.Module, replacement: Callable[..., Any]) -> None:
        """Have `replacement(forward, *args, **kwargs)` run in the place of `module.forward`.

        A module that was compiled in place runs its replacement uncompiled.
        """
        compiled = module._compiled_call_impl
        self._forwards.append((module, module.__dict__.get("forward"), compiled))
        module._compiled_call_impl = None
        module.forward = partial(replacement, module.forward)

    def before(self, module: nn.Module, hook: Callable[..., None]) -> None:
        """Call `hook(module, args)` before each forward of `module`."""
        self._handles.append(module.register_forward_pre_hook(hook))

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

        self._handles.append(module.register_forward_pre_hook(enter))
        self._handles.append(module.register_forward_hook(leave, always_call=True))

    def undo(self) -> None:
        """The model as it was."""
        for module, forward, compiled in reversed(self._forwards):
            del module.forward
            if forward is not None:
                module.forward = forward
            module._compiled_call_impl = compiled
        self._forwards.clear()
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
