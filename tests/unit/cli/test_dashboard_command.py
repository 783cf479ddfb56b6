"""`attnbal wandb-dashboard`: what it asks for, prints and refuses; nothing is sent."""

from __future__ import annotations

import json
import sys

import pytest
from typer.testing import CliRunner

import lightning_attnbal.tracking.views as views
from lightning_attnbal.cli._app import app


def run(*words, **environment):
    return CliRunner().invoke(app, ["wandb-dashboard", *words], env=environment)


@pytest.fixture
def asked(monkeypatch):
    """What `save_dashboard` was asked for."""
    calls = []

    def save(entity, project, *, dry_run=False):
        calls.append((entity, project, dry_run))
        return '{"name": "x"}' if dry_run else "https://wandb.ai/team/p?nw=1"

    monkeypatch.setattr(views, "save_dashboard", save)
    return calls


def test_prints_the_address(asked):
    result = run("p", "--entity", "team")
    assert (result.exit_code, result.stdout) == (0, "https://wandb.ai/team/p?nw=1\n")
    assert asked == [("team", "p", False)]


def test_entity_comes_from_the_environment_too(asked):
    run("p", WANDB_ENTITY="group")
    assert asked == [("group", "p", False)]


def test_json(asked):
    saved = json.loads(run("p", "--entity", "team", "--json").stdout)
    tried = json.loads(run("p", "--entity", "team", "--json", "--dry-run").stdout)
    assert saved == {"is_saved": True, "url": "https://wandb.ai/team/p?nw=1"}
    assert tried == {"is_saved": False, "workspace": {"name": "x"}}


def test_without_an_entity_is_one_line():
    result = run("p", "--dry-run", WANDB_ENTITY="")
    assert result.exit_code == 2
    assert result.stderr == "attnbal: Expected `entity` to name a W&B entity, but got ''.\n"


def test_without_the_extra_is_one_line_that_names_it(monkeypatch):
    monkeypatch.setattr("lightning_attnbal.tracking.views._dashboard.find_spec", lambda name: None)
    result = run("p", "--entity", "team")
    assert result.exit_code == 2
    assert "lightning-attnbal[wandb]" in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_missing_package_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "lightning_attnbal.tracking.views", None)
    result = run("p", "--entity", "team")
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
