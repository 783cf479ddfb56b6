"""What the page says, how it is built, and that it loads nothing."""

import base64
import hashlib
import re
from dataclasses import replace
from itertools import pairwise

import pytest

from lightning_attnbal.tracking import (
    PlanDecided,
)
from lightning_attnbal.tracking.report import render_report
from tests.unit.tracking.charts.streams import make_stream
from tests.unit.tracking.report.page import Page


@pytest.fixture(scope="module")
def full():
    """A page of two runs, the first with everything in it."""
    first = make_stream(tasks=("sentiment", "topic"))
    few = {"run_started", "load_measured", "plan_decided", "cost_spent", "scores_measured"}
    second = [event for event in make_stream(quality=0.25) if event.kind in {*few, "run_ended"}]
    return render_report({"balanced": first, "control": second})


@pytest.fixture(scope="module")
def page(full):
    return Page(full)


def test_page_is_well_formed(page):
    assert page.open == []


def test_page_loads_nothing(page):
    linked = {
        value
        for _, attributes in page.elements
        for name, value in attributes.items()
        if name in {"src", "href", "xlink:href", "action", "data", "srcset", "poster"}
    }
    assert linked <= {"#content", "#run-1", "#run-2"}


def test_policy_allows_the_own_style_and_script_only(full, page):
    (policy,) = (
        meta["content"]
        for meta in page.all("meta")
        if meta.get("http-equiv") == "Content-Security-Policy"
    )
    (script,), (style,) = (
        re.findall(rf"<{t}>(.*?)</{t}>", full, re.DOTALL) for t in ("script", "style")
    )
    hashes = [
        f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
        for text in (style, script)
    ]
    assert policy == (
        f"default-src 'none'; style-src {hashes[0]}; script-src {hashes[1]}; "
        "base-uri 'none'; form-action 'none'"
    )


def test_no_element_carries_a_handler_or_a_style(page):
    carried = {name for _, attributes in page.elements for name in attributes}
    assert not {name for name in carried if name.startswith("on") or name == "style"}


def test_names_of_elements_are_unique(page):
    names = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(names) == len(set(names))


def test_every_reference_to_a_gradient_is_met(page):
    names = {attributes.get("id") for _, attributes in page.elements}
    used = {
        found
        for _, attributes in page.elements
        for value in attributes.values()
        for found in re.findall(r"^url\(#(.+)\)$", value or "")
    }
    assert used
    assert used <= names


def test_headings_go_down_one_level_at_a_time(page):
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))


def test_page_has_landmarks_language_and_skip_link(page):
    assert page.all("html") == [{"lang": "en"}]
    assert [tag for tag in ("header", "main", "footer", "nav") if len(page.all(tag)) == 1] == [
        "header",
        "main",
        "footer",
        "nav",
    ]
    assert page.all("a")[0]["href"] == "#content"


def test_every_table_has_scoped_headers_and_a_caption(page):
    assert {attributes.get("scope") for attributes in page.all("th")} == {"col", "row"}
    assert len(page.all("caption")) == len(page.all("table"))


def test_every_figure_has_a_table(page):
    assert len(page.all("figure")) == 15 + 7 + 1
    assert len(page.all("table")) >= len(page.all("figure"))


def test_headline_tells_budget_spent_saved_and_quality(page):
    facts = page.text("dt", "strong")[:12]
    assert dict(zip(facts[::2], facts[1::2], strict=True)) == {
        "Budget": "40% of the full run",
        "Spent": "99.7%",
        "Saved": "60.1%",
        "Time": "30 s",
        "val/accuracy": "0.5667",
        "val/loss": "0.3333",
    }


def test_runs_are_compared(page):
    cells = page.text("th", "td")
    start = cells.index("control")
    assert cells[start - 7 : start + 7] == [
        "balanced", "40% of the full run", "99.7%", "60.1%", "30 s", "0.5667", "0.3333",
        "control", "40% of the full run", "99.7%", "60.1%", "30 s", "0.3167", "0.3333",
    ]  # fmt: skip


def test_one_mark_of_each_drawing_is_in_the_tab_order(full):
    drawings = re.findall(r"<svg.*?</svg>", full, re.DOTALL)
    assert {drawing.count('tabindex="0"') for drawing in drawings} == {1}


def test_decisions_tell_plan_reason_and_changes(page):
    text = " ".join(page.text())
    assert (
        "Epoch 1, step 10 · 33% of the budget spent · task sentiment · 3 of 4 units train" in text
    )
    assert "epoch end; frontier: best forecast" in text
    assert "layer.0: full → frozen: frozen: 0.04 per GFLOP against λ = 0.03" in text


def test_bottleneck_and_critical_path_are_named(page):
    text = " ".join(page.text("p"))
    assert "Its dearest link is head, 40.0% of the FLOPs." in text
    assert "4 of 4 units forward, and 1 back to the lowest that trains, head" in text


def test_notices_and_environment_are_there(page):
    assert {"cache refilled", "2.14.1", "Linux"} <= set(page.text("td"))


def test_kept_plans_are_told_once():
    events = make_stream(epochs=1)
    decided = next(event for event in events if isinstance(event, PlanDecided))
    again = [replace(decided, step=step, sequence=100 + step) for step in (20, 30)]
    text = " ".join(
        Page(render_report({"run": [*events[:-1], *again, events[-1]]})).text("summary")
    )
    assert "kept 2 times, until step 30" in text


def test_many_decisions_are_cut_in_the_middle():
    events = make_stream(units=("a", "b", "c", "d", "e"), epochs=230)
    events = [event for event in events if isinstance(event, PlanDecided)]
    page = Page(render_report({"long": events}))
    assert sum(text.startswith("Epoch ") for text in page.text("summary")) == 200
    assert (
        "30 decisions in the middle are left out here; the run's file has them all." in page.text()
    )
