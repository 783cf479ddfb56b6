"""`attnbal compare`."""

from __future__ import annotations

from typing import Annotated

import typer

from lightning_attnbal.cli._errors import one_line_errors
from lightning_attnbal.cli._report import RunsArgument
from lightning_attnbal.cli._show import JsonOption, show


def compare_command(
    run: RunsArgument,
    metric: Annotated[
        str | None,
        typer.Option(help="Show this score only, highest first; without it, cheapest first."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Put runs side by side: what each spent, saved and reached, against the first one."""
    with one_line_errors():
        from lightning_attnbal.cli._runs import read_runs
        from lightning_attnbal.tracking import compare_runs

        comparison = compare_runs(read_runs(run), metric)
    show(comparison, comparison.to_dict(), as_json=as_json)
