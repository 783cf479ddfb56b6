"""The `attnbal` command."""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line; needs the extra `cli`.

    Raises:
        SystemExit: always, with 0, or 2 for bad input or a missing extra.
    """
    try:
        from lightning_attnbal.cli._app import app
    except ModuleNotFoundError as error:
        if error.name != "typer":
            raise
        sys.stderr.write('attnbal needs typer; install it: pip install "lightning-attnbal[cli]"\n')
        raise SystemExit(2) from error
    app()
