"""Bad input ends a command with one line and exit code 2."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import typer

_BAD_INPUT = (
    ValueError,
    TypeError,
    RuntimeError,
    LookupError,
    AttributeError,
    ImportError,
    OSError,
)


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Say what was wrong on stderr, without a traceback.

    Raises:
        typer.Exit: with code 2, after an error.
    """
    try:
        yield
    except _BAD_INPUT as error:
        line = " ".join(str(error).split())
        typer.echo(f"attnbal: {line or type(error).__name__}", err=True)
        raise typer.Exit(2) from error
