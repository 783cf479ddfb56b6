"""`attnbal wandb-dashboard`."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from lightning_attnbal.cli._errors import one_line_errors
from lightning_attnbal.cli._show import JsonOption, show_json


def dashboard_command(
    project: Annotated[str, typer.Argument(help="W&B project that the runs are in.")],
    entity: Annotated[str, typer.Option(help="W&B user or team.", envvar="WANDB_ENTITY")] = "",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Send nothing; print what would be saved.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Save a made layout of all the balancer's charts as a W&B workspace."""
    with one_line_errors():
        from lightning_attnbal.tracking.views import save_dashboard

        saved = save_dashboard(entity, project, dry_run=dry_run)
    if as_json:
        key = "workspace" if dry_run else "url"
        show_json({"is_saved": not dry_run, key: json.loads(saved) if dry_run else saved})
    else:
        typer.echo(saved)
