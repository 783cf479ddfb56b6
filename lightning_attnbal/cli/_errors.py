"""Bad input ends a command with one line and exit code 2."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import typer

_SAYS_ENOUGH = (ValueError, TypeError, RuntimeError, ImportError, OSError)
_NEEDS_A_NAME = (  # a KeyError says no more than the key; these come from users' own modules too
    LookupError,
    AttributeError,
    ArithmeticError,
    AssertionError,
    SyntaxError,
)
_LIBRARIES = {"lightning", "wandb"}  # whose own errors derive from Exception


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Say what was wrong on stderr, without a traceback.

    Raises:
        typer.Exit: with code 2, after an error.
    """
    try:
        yield
    except Exception as error:
        library = type(error).__module__.partition(".")[0]
        if not isinstance(error, _SAYS_ENOUGH + _NEEDS_A_NAME) and library not in _LIBRARIES:
            raise
        line = " ".join(str(error).split()) or type(error).__name__
        if isinstance(error, _NEEDS_A_NAME):
            line = f"{type(error).__name__}: {line}"
        typer.echo(f"attnbal: {line}", err=True)
        raise typer.Exit(2) from error
