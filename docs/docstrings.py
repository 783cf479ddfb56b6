"""What the docstrings mean and their reader (Griffe) would not know."""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, Object

_EXAMPLE = re.compile(r"^Example:$", re.MULTILINE)
_INDEXED = re.compile(r"`[^`]*`|(?<=\w)\[([a-z]+)\]\[([a-z]+)\]")


class Docstrings(Extension):
    """Doctests under `Example:` are code, and the formula v[i][k] is no link."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Rewrite a docstring before it is parsed."""
        if obj.docstring is not None:
            text = _EXAMPLE.sub("Examples:", obj.docstring.value)
            obj.docstring.value = escape_indices(text)


def escape_indices(text: str) -> str:
    """Two indices in a row are Markdown's link by reference, unless escaped or in code."""
    return _INDEXED.sub(lambda m: m[0] if m[1] is None else rf"\[{m[1]}\]\[{m[2]}\]", text)
