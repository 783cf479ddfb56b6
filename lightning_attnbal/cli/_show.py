"""Output: tables in a terminal, plain text in a pipe, JSON on demand."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer
from rich.console import Console, RenderableType

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, not text.")]

_WIDE = 200  # columns, where nobody's terminal sets them


def show(content: RenderableType, data: Any, *, as_json: bool) -> None:
    """Print `data` as JSON, or `content` as it suits where the output goes."""
    if as_json:
        show_json(data)
        return
    console = Console()
    if not console.is_terminal:
        console = Console(width=_WIDE, no_color=True, highlight=False)
    console.print(content)


def show_json(data: Any) -> None:
    """Print plain data as JSON."""
    typer.echo(json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False))
