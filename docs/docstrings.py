"""What the docstrings mean and their reader (Griffe) would not know."""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, Module, Object

_EXAMPLE = re.compile(r"^Example:$", re.MULTILINE)
_INDICES = re.compile(r"`[^`]*`|(?<=\w)\[([a-z]+)\]\[([a-z]+)\]")
_LIST = re.compile(r"^(\S.*)\n(?=1\. )", re.MULTILINE)


class Docstrings(Extension):
    """Doctests under `Example:` are code, and the rest is Markdown as GitHub reads it."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Rewrite a docstring before it is parsed."""
        if obj.docstring is not None:
            obj.docstring.value = as_on_github(_EXAMPLE.sub("Examples:", obj.docstring.value))

    def on_package(self, *, pkg: Module, **_: Any) -> None:
        """The same for the outermost package, for which `on_object` is not called."""
        self.on_object(obj=pkg)


def as_on_github(text: str) -> str:
    """Python-Markdown wants a blank line before a list, and takes v[i][k] for a link."""
    plain = _INDICES.sub(lambda m: m[0] if m[1] is None else rf"\[{m[1]}\]\[{m[2]}\]", text)
    return _LIST.sub(r"\1\n\n", plain)
