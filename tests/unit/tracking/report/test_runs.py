"""Hostile text, notebooks, runs from files, and wrong input."""

import json
from dataclasses import replace

import pytest

from lightning_attnbal.tracking import CostSpent, Notice, Recorder, RunEnded, RunStarted
from lightning_attnbal.tracking.report import ReportView, render_report, write_report
from tests.unit.tracking.charts.streams import make_stream
from tests.unit.tracking.report.page import Page

EVIL = "</script><img src=x onerror=alert(1)>\"'{{7*7}}{% raise %}&amp;"


@pytest.fixture(scope="module")
def hostile():
    events = make_stream(units=(EVIL, f"{EVIL}2", "head"), epochs=1, tasks=(EVIL, "b"))
    started = events[0]
    assert isinstance(started, RunStarted)
    where = replace(started.environment, platform=EVIL, device=EVIL)
    events[0] = replace(started, budget=EVIL, environment=where)
    events += [Notice(text=EVIL), RunEnded(why=EVIL, spent=1.0, limit=2e15)]
    return render_report({EVIL: events, "other": events[:1]})


def test_hostile_text_is_shown_as_text(hostile):
    page = Page(hostile)
    assert page.all("img") == []
    assert len(page.all("script")) == 1
    for place in ("h2", "title", "strong", "td", "li", "th", "text"):
        shown = EVIL[-12:] if place == "text" else EVIL
        assert any(shown in text for text in page.text(place)), place


def test_hostile_text_is_evaluated_by_no_template(hostile):
    assert "{{7*7}}" in hostile
    assert ">49<" not in hostile


def test_hostile_text_is_escaped_in_a_notebook():
    kinds = {"plan_decided", "scores_measured", "shares_decided"}
    events = make_stream(units=(EVIL, f"{EVIL}2", "head"), epochs=1, tasks=(EVIL, "b"))
    events = [event for event in events if event.kind in kinds]
    page = Page(ReportView(events)._repr_html_())
    assert page.all("img") == page.all("script") == []


def test_notebook_view_draws_without_scripts():
    page = Page(ReportView(make_stream())._repr_html_())
    assert page.open == []
    assert page.all("script") == []
    assert len(page.all("svg")) == 14
    assert any(text.startswith("layer.0 · full · ") for text in page.text("title"))


def test_notebook_view_is_short_in_a_terminal():
    assert repr(ReportView(make_stream())) == f"ReportView({len(make_stream())} events)"


def test_run_that_only_began_has_a_page():
    page = Page(render_report({"young": make_stream()[:1]}))
    assert "The run is still going, or was cut short." in page.text("p")
    assert page.all("svg") == []


def test_run_without_costs_known_in_full_says_nothing_was_saved():
    events = [event for event in make_stream() if event.kind in {"run_started", "plan_decided"}]
    assert "Saved" not in Page(render_report({"run": events})).text("dt")


def test_files_and_folders_are_named_after_their_folder(tmp_path):
    for name in ("first/attnbal.jsonl", "second/attnbal.jsonl", "deep/second/attnbal.jsonl"):
        recorder = Recorder(tmp_path / name)
        recorder.record(Notice(text=name))
    runs = [tmp_path / "first", tmp_path / "second/attnbal.jsonl", tmp_path / "deep/second"]
    written = write_report(runs, tmp_path / "out" / "report.html")
    headings = Page(written.read_text(encoding="utf-8")).text("h2")
    assert headings[1:] == ["Run: first", "Run: second", "Run: second (2)"]


def test_page_is_the_same_each_time():
    kinds = {"plan_decided", "contribution_measured"}
    events = [event for event in make_stream(epochs=1) if event.kind in kinds]
    assert render_report({"a": events}) == render_report({"a": events})


def test_no_run_is_refused():
    with pytest.raises(ValueError, match="Expected `runs` to hold at least one run"):
        render_report({})


def test_empty_run_is_refused():
    with pytest.raises(ValueError, match="Expected each run to have events, but 'a' has none"):
        render_report({"a": []})


def test_single_path_is_refused(tmp_path):
    with pytest.raises(TypeError, match="Expected `runs` to be a sequence of paths or a mapping"):
        render_report(str(tmp_path))


def test_missing_file_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"attnbal\.jsonl"):
        render_report([tmp_path / "attnbal.jsonl"])


def test_broken_line_is_named(tmp_path):
    file = tmp_path / "attnbal.jsonl"
    file.write_text(json.dumps({"kind": "unheard_of"}) + "\n")
    with pytest.raises(ValueError, match="Expected line 1 to be an event"):
        render_report([file])


def test_spent_without_plan_is_no_reason_to_fail():
    events = [CostSpent(step=1, spent=1.0, planned=1.0, seconds=1.0, flops=1.0)]
    assert "no plan was decided" in Page(render_report({"a": events})).text("span")[0].strip()
