"""A W&B workspace with the panels of a balanced run, built in code."""

from __future__ import annotations

import warnings
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from lightning_attnbal.tracking.views._keys import Key, step_metric
from lightning_attnbal.tracking.views._panels import FIGURES, LINES, TABLES

if TYPE_CHECKING:
    from wandb_workspaces.workspaces import Workspace

_NAME = "Attention Balancer"
_OPEN = {"Budget", "Plan"}


def build_dashboard(entity: str, project: str, name: str = _NAME) -> Workspace:
    """A workspace with the sections Budget, Plan, Load, Tasks, Attention and Time.

    Nothing is sent. W&B does not draw a panel whose keys no run has.

    Args:
        entity: user or team.
        project: of the runs.
        name: of the workspace, as shown.

    Raises:
        ModuleNotFoundError: wandb-workspaces is not installed.
        ValueError: the entity or the project is empty.

    Example:
        >>> [section.name for section in build_dashboard("team", "project").sections]
        ['Budget', 'Plan', 'Load', 'Tasks', 'Attention', 'Time']
    """
    for what, value in (("entity", entity), ("project", project)):
        if not value:
            msg = f"Expected `{what}` to name a W&B {what}, but got {value!r}."
            raise ValueError(msg)
    ws = _load("workspaces")
    sections = [
        ws.Section(name=section, panels=_panels(section), is_open=section in _OPEN)
        for section in LINES
    ]
    workspace: Workspace = ws.Workspace(
        entity=entity, project=project, name=name, sections=sections
    )
    return workspace


def save_dashboard(entity: str, project: str, *, dry_run: bool = False) -> str:
    """Send the dashboard to W&B and return its address; or return what would be sent.

    Args:
        entity: user or team.
        project: of the runs.
        dry_run: send nothing, needs no account: return the workspace as JSON.

    Raises:
        ModuleNotFoundError: wandb-workspaces is not installed.
        ValueError: the entity or the project is empty.

    Example:
        >>> '"viewType":"Run History Line Plot"' in save_dashboard("team", "project", dry_run=True)
        True
    """
    workspace = build_dashboard(entity, project)
    if dry_run:
        return workspace_json(workspace)
    workspace.save()  # type: ignore[no-untyped-call]  # theirs
    return str(workspace.url)


def workspace_json(workspace: Workspace) -> str:
    """The workspace as W&B's server gets it; wandb-workspaces has no public way to say it."""
    json: str = workspace._to_model().model_dump_json(by_alias=True, exclude_none=True)
    return json


def _load(module: str) -> Any:
    """A module of wandb-workspaces, without its own warnings about pydantic."""
    if find_spec("wandb_workspaces") is None:
        msg = "The dashboard needs wandb-workspaces: pip install 'lightning-attnbal[wandb]'."
        raise ModuleNotFoundError(msg, name="wandb_workspaces")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return import_module(f"wandb_workspaces.{module}")


def _panels(section: str) -> list[Any]:
    """Line plots, then figures, then tables."""
    wr = _load("reports.v2")
    plots = [_line_plot(title, keys) for title, keys in LINES[section].items()]
    figures = [
        wr.MediaBrowser(title=name, media_keys=[Key.FIGURE.of(name)], num_columns=1)
        for name in FIGURES[section]
    ]
    tables = [wr.WeavePanelSummaryTable(table_name=key.value) for key in TABLES.get(section, ())]
    return [*plots, *figures, *tables]


def _line_plot(title: str, keys: tuple[Key, ...] | str) -> Any:
    """Exact keys against their step, or a family against optimizer steps."""
    wr = _load("reports.v2")
    if isinstance(keys, str):
        return wr.LinePlot(title=title, x=Key.STEP.value, metric_regex=keys)
    x = step_metric(keys[0]).value
    return wr.LinePlot(title=title, x=x, y=[key.value for key in keys])
