"""The commands, as typer sees them."""

from __future__ import annotations

import sys
from importlib import metadata
from typing import Annotated

import typer

from lightning_attnbal.cli._compare import compare_command
from lightning_attnbal.cli._dashboard import dashboard_command
from lightning_attnbal.cli._doctor import doctor_command
from lightning_attnbal.cli._plan import plan_command
from lightning_attnbal.cli._profile import profile_command
from lightning_attnbal.cli._report import report_command

app = typer.Typer(
    rich_markup_mode="rich" if sys.stdout.isatty() else None,  # frames are for terminals
    pretty_exceptions_enable=False,
)
for _name, _command in (
    ("profile", profile_command),
    ("plan", plan_command),
    ("report", report_command),
    ("compare", compare_command),
    ("doctor", doctor_command),
    ("wandb-dashboard", dashboard_command),
):
    app.command(_name)(_command)


def _show_version(is_wanted: bool) -> None:
    if is_wanted:
        typer.echo(f"attnbal {metadata.version('lightning-attnbal')}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def attnbal(
    context: typer.Context,
    version: Annotated[  # noqa: ARG001 (the option speaks for itself)
        bool,
        typer.Option("--version", help="Print the version.", callback=_show_version, is_eager=True),
    ] = False,
) -> None:
    """Attention Balancer: what a model costs to train, and what a budget would buy.

    Exit codes: 0 all is well; 1 `doctor` found what would be refused; 2 bad input.
    """
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
