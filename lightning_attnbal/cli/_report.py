"""`attnbal report`."""

from __future__ import annotations

import webbrowser
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from lightning_attnbal.cli._errors import one_line_errors
from lightning_attnbal.cli._show import JsonOption, show_json

RunsArgument = Annotated[
    list[Path],
    typer.Argument(
        metavar="RUN...",
        help="An attnbal.jsonl, its folder, or a folder with several runs.",
        show_default=False,
    ),
]


def report_command(
    run: RunsArgument,
    output: Annotated[Path, typer.Option("--output", "-o", help="The file to write.")] = Path(
        "attnbal-report.html"
    ),
    opens: Annotated[bool, typer.Option("--open", help="Show it in the web browser.")] = False,
    live: Annotated[
        bool,
        typer.Option(
            "--live",
            help="Write no file: serve the report on this machine and update it as the runs go "
            "on, until Ctrl-C.",
        ),
    ] = False,
    port: Annotated[
        int, typer.Option(help="For --live; 0 takes a free one.", min=0, max=65535)
    ] = 0,
    as_json: JsonOption = False,
) -> None:
    """Draw runs as one HTML file that opens anywhere, without a network.

    With --json the figures are printed and no file is written; with --live --json, the address.
    """
    if live:
        _serve(run, port=port, opens=opens, as_json=as_json)
    elif as_json:
        with one_line_errors():
            from lightning_attnbal.cli._runs import read_runs
            from lightning_attnbal.tracking import compare_runs

            figures = compare_runs(read_runs(run)).to_dict()
        show_json(figures)
    else:
        with one_line_errors():
            from lightning_attnbal.cli._runs import read_runs
            from lightning_attnbal.tracking.report import write_report

            written = write_report(read_runs(run), output)
        typer.echo(f"Wrote {written}")
        if opens:
            webbrowser.open(written.resolve().as_uri())


def _serve(places: list[Path], *, port: int, opens: bool, as_json: bool) -> None:
    with one_line_errors():
        from lightning_attnbal.cli._runs import find_runs
        from lightning_attnbal.tracking.live import LiveReport
        from lightning_attnbal.tracking.report import render_report

        find_runs(places)  # what is wrong from the start is said here, not on the page
        live = LiveReport(partial(find_runs, places), render_report, port=port)
    with live:
        if as_json:
            show_json({"url": live.url})
        else:
            typer.echo(f"The report is at {live.url} (this machine only). Ctrl-C ends it.")
        if opens:
            webbrowser.open(live.url)
        live.serve()
