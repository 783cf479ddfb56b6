"""The dashboard draws what is logged, and is valid without asking W&B."""

import json
import re
import socket
from importlib import util

import pytest

from lightning_attnbal.tracking.views import Key, build_dashboard, save_dashboard
from tests.unit.tracking.views.story import SCALARS

SECTIONS = ["Budget", "Plan", "Load", "Tasks", "Attention", "Time"]


@pytest.fixture(scope="module")
def sections():
    """Section → its panels' (type, configuration), as W&B's server would get them."""
    spec = json.loads(save_dashboard("team", "project", dry_run=True))["spec"]["section"]
    return {
        section["name"]: [(p["viewType"], p["config"]) for p in section["panels"]]
        for section in spec["panelBankConfig"]["sections"]
    }


def configs(sections, kind):
    return [config for panels in sections.values() for k, config in panels if k == kind]


def test_it_has_the_sections_in_order(sections):
    assert list(sections) == SECTIONS


def test_it_survives_its_own_reader():
    from wandb_workspaces.workspaces import Workspace

    workspace = build_dashboard("team", "project")
    model = workspace._to_model()
    again = Workspace._from_model(model)._to_model()
    assert again.spec.section.panel_bank_config == model.spec.section.panel_bank_config


def test_every_line_plot_finds_what_a_run_logs(sections):
    logged = {key for key, _ in SCALARS}
    empty = []
    for config in configs(sections, "Run History Line Plot"):
        keys = set(config["metrics"])
        if "metricRegex" in config:
            keys = {key for key in logged if re.fullmatch(config["metricRegex"], key)}
        if not keys or not keys <= logged:
            empty.append(config["chartTitle"])
        assert config["xAxis"] in {Key.STEP.value, Key.EPOCH.value}
    assert empty == []


def test_every_section_key_has_a_place(sections):
    """What is measured per task or part in one panel, and the account in detail."""
    drawn = configs(sections, "Run History Line Plot")
    patterns = [c["metricRegex"] for c in drawn if "metricRegex" in c]
    patterns += [re.escape(key) for config in drawn for key in config["metrics"]]
    absent = {k for k, _ in SCALARS if not any(re.fullmatch(p, k) for p in patterns)}
    assert absent == {
        "attnbal/budget/flops",
        "attnbal/budget/saved",
        "attnbal/budget/seconds",
        "attnbal/forecast/std",
        "attnbal/load/cache_bytes",
        "attnbal/load/cache_flops_saved",
        "attnbal/load/reference_cost",
        "attnbal/load/saved_bytes",
        "attnbal/plan/num_changes",
        "attnbal/plan/num_changes/b",
        "attnbal/plan/value_per_step",
        "attnbal/plan/value_per_step/b",
        "attnbal/task/batches/a",
        "attnbal/task/batches/b",
    }


def test_every_figure_of_the_charts_has_a_panel(sections):
    from lightning_attnbal.tracking.charts._all import DRAWERS

    shown = [key for config in configs(sections, "Media Browser") for key in config["mediaKeys"]]
    assert sorted(shown) == sorted(Key.FIGURE.of(name) for name in DRAWERS)


def test_both_tables_have_a_panel(sections):
    shown = json.dumps(configs(sections, "Weave"))
    assert all(f'"val": "{key}"' in shown for key in (Key.UNITS, Key.DECISIONS))


def test_a_dry_run_opens_no_connection(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket, "socket", refuse)
    assert json.loads(save_dashboard("team", "project", dry_run=True))["entity"] == "team"


def test_saving_returns_the_address(monkeypatch):
    from wandb_workspaces.workspaces import Workspace

    saved = []
    monkeypatch.setattr(Workspace, "save", lambda self: saved.append(self))
    monkeypatch.setattr(Workspace, "url", property(lambda self: f"there/{self.project}"))
    assert save_dashboard("team", "project") == "there/project"
    assert [(w.entity, w.name) for w in saved] == [("team", "Attention Balancer")]


@pytest.mark.parametrize(("entity", "project", "name"), [("", "p", "entity"), ("e", "", "project")])
def test_an_empty_name_is_refused(entity, project, name):
    with pytest.raises(ValueError, match=f"Expected `{name}` to name a W&B {name}, but got ''"):
        build_dashboard(entity, project)


def test_the_extra_is_named(monkeypatch):
    find = util.find_spec
    monkeypatch.setattr(
        "lightning_attnbal.tracking.views._dashboard.find_spec",
        lambda name: None if name == "wandb_workspaces" else find(name),
    )
    with pytest.raises(ModuleNotFoundError, match=r"lightning-attnbal\[wandb\]"):
        build_dashboard("team", "project")
