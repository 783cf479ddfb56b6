"""Which figures a stream gives, and what they hold."""

import re
from importlib.util import find_spec
from itertools import chain

import pytest

from lightning_attnbal.core import Plan
from lightning_attnbal.tracking import (
    AffinityMeasured,
    CostSpent,
    PlanDecided,
    RunEnded,
    build_timeline,
)
from lightning_attnbal.tracking.charts import draw, to_png, to_svg
from tests.unit.tracking.charts.streams import SECONDS, make_stream

FIGURES = {
    "plan": "plan_decided",
    "time": "time_spent",
    "load": "load_measured",
    "contribution": "contribution_measured",
    "cost": "plan_decided",
    "budget": "cost_spent",
    "learning_rate": "cost_spent",
    "scores": "scores_measured",
    "frontier": "frontier_solved",
    "forecast": "frontier_solved",
    "attention_entropy": "attention_measured",
    "attention_importance": "attention_measured",
    "shares": "shares_decided",
    "affinity": "affinity_measured",
    "cost_error": "cost_spent",
}


def rows_of(chart):
    """All rows of all layers and panels of a chart, each once."""
    return list(chain.from_iterable(chart.to_dict()["datasets"].values()))


@pytest.fixture(scope="module")
def stream():
    return make_stream(tasks=("a", "b"))


@pytest.fixture(scope="module")
def charts(stream):
    return draw(stream)


def test_full_stream_gives_every_figure(charts):
    assert list(charts) == list(FIGURES)


@pytest.mark.parametrize("kind", sorted(set(FIGURES.values())))
def test_figure_is_absent_without_its_events(stream, charts, kind):
    absent = set(charts) - set(draw([event for event in stream if event.kind != kind]))
    needs_plan = {"budget", "learning_rate", "forecast"} if kind == "plan_decided" else set()
    assert absent == {name for name, needed in FIGURES.items() if needed == kind} | needs_plan


def test_bars_of_the_plan_are_the_spans_of_the_timeline():
    events = make_stream(units=("low", "mid", "high"))
    spans = build_timeline(events).spans["main"]
    bars = [row for row in rows_of(draw(events)["plan"]) if "level" in row]
    found = {
        (bar["row"], bar["level"], round(bar["start"], 9), round(bar["end"], 9)) for bar in bars
    }
    assert found == {
        (span.unit, str(span.level), round(span.start, 9), round(span.end, 9)) for span in spans
    }


def test_marks_of_the_plan_say_why(charts):
    said = {row["text"] for row in rows_of(charts["plan"]) if row.get("row") == "layer.0"}
    assert "layer.0 · full · 0% to 67% of the budget\nfull: 0.04 per GFLOP against λ = 0.03" in said


def test_waterfall_starts_each_part_where_the_one_before_ended(charts):
    rows = rows_of(charts["time"])
    assert [row["start"] for row in rows] == [0.0, *(row["end"] for row in rows[:-1])]
    assert rows[-1]["end"] == pytest.approx(sum(SECONDS.values()))
    assert rows[0]["text"] == "forward · 40 s · 33.9% of 118 s"


def test_cost_error_is_spent_over_planned(charts):
    errors = [row["error"] for row in rows_of(charts["cost_error"]) if "step" in row]
    assert errors == pytest.approx([1 / 1.02 - 1] * len(errors))


def test_budget_shows_shares_of_the_limit(charts):
    spent = {
        row["step"]: row["share"] for row in rows_of(charts["budget"]) if row.get("what") == "spent"
    }
    assert spent == pytest.approx({9: 0.33, 19: 0.663333333, 29: 0.996666667})


def test_one_frontier_point_is_marked_chosen_per_task(charts):
    chosen = [
        row["plan"] for row in rows_of(charts["frontier"]) if row["text"].startswith("chosen:")
    ]
    assert set(chosen) == {"full: the last 4"}


@pytest.mark.parametrize("name", ["plan", "contribution", "load", "shares"])
def test_large_run_is_drawn_with_few_marks(name):
    units = [f"encoder.layer.{i}" for i in range(200)]
    events = make_stream(units, epochs=30, tasks=("a", "b", "c"))
    rows = rows_of(draw(events, max_marks=300)[name])
    assert sum("text" in row for row in rows) <= 300


def test_neighbours_share_a_row_that_names_them_all():
    units = [f"encoder.layer.{i}" for i in range(200)]
    rows = rows_of(draw(make_stream(units, epochs=1))["plan"])
    first = next(row for row in rows if row.get("text", "").startswith("encoder.layer.0 "))
    assert first["row"] == "…coder.layer.0–3"
    assert first["text"].startswith("encoder.layer.0 … encoder.layer.3 (4 units) · ")


def test_names_of_rows_stay_apart_when_shortened():
    units = [f"{name}.a_long_name_that_ends_alike" for name in ("first", "second", "third")]
    rows = rows_of(draw(make_stream(units, epochs=1))["plan"])
    assert len({row["row"] for row in rows if "row" in row}) == 3


def test_same_stream_gives_the_same_charts(stream, charts):
    again = draw(stream)
    assert {k: v.to_dict() for k, v in again.items()} == {k: v.to_dict() for k, v in charts.items()}


def test_rank_of_lora_darkens_its_colour():
    plan = Plan({"a": "lora2", "b": "lora4", "c": "lora8", "head": "full"})
    events = [
        PlanDecided(plan=plan, spent=0.0, remaining=8.0),
        RunEnded(why="budget spent", spent=8.0, limit=8.0),
    ]
    scale = draw(events)["plan"].to_dict()["layer"][0]["encoding"]["color"]["scale"]
    assert scale["domain"] == ["full", "lora8", "lora4", "lora2"]
    assert len(set(scale["range"])) == 4


@pytest.mark.parametrize("name", list(FIGURES))
def test_every_figure_is_drawn_with_described_marks(charts, name):
    assert 'role="graphics-symbol" aria-roledescription="' in to_svg(charts[name])


def test_png_grows_with_its_scale(charts):
    small, large = (to_png(charts["time"], scale) for scale in (1.0, 2.0))
    assert small.startswith(b"\x89PNG\r\n")
    width = [int.from_bytes(png[16:20], "big") for png in (small, large)]
    assert width[1] == pytest.approx(2 * width[0], abs=1)


def luminance(color):
    shares = [int(number) / 255 for number in re.findall(r"\d+", color)]
    red, green, blue = (x / 12.92 if x <= 0.03928 else ((x + 0.055) / 1.055) ** 2.4 for x in shares)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_numbers_on_cells_have_the_contrast_of_wcag_aa():
    tasks = tuple("abcdefghijk")
    values = [-1 + 2 * i / 120 for i in range(121)]
    affinity = tuple(tuple(values[11 * i : 11 * i + 11]) for i in range(11))
    svg = to_svg(draw([AffinityMeasured(tasks=tasks, affinity=affinity)])["affinity"])
    cells = re.findall(r'aria-label="a step of[^>]*? fill="(rgb[^"]+)"', svg)
    inks = re.findall(r'<text[^>]*fill="(#ffffff|#000000)"', svg)
    assert len(cells) == len(inks) == 121
    for cell, ink in zip(cells, inks, strict=True):
        dark, light = sorted((luminance(cell), 1.0 if ink == "#ffffff" else 0.0))
        assert (light + 0.05) / (dark + 0.05) >= 4.5


def test_nothing_happened_gives_no_figure():
    assert draw([]) == {}


def test_run_without_units_in_its_frontier_or_zero_cost_draws_the_rest():
    plan = Plan({"head": "full"})
    events = [
        PlanDecided(plan=plan, spent=0.0, remaining=8.0),
        CostSpent(step=1, spent=0.0, planned=0.0, seconds=0.0, flops=0.0),
    ]
    assert list(draw(events)) == ["plan", "budget"]


def test_narrow_width_is_refused(stream):
    with pytest.raises(ValueError, match=r"Expected `width` to be in \[240, inf\), but got 100"):
        draw(stream, width=100)


def test_scale_of_nothing_is_refused(charts):
    with pytest.raises(ValueError, match=r"Expected `scale` to be in \(0, inf\), but got 0"):
        to_png(charts["time"], scale=0)


def test_missing_library_is_named_with_the_extra(stream, monkeypatch):
    monkeypatch.setattr(
        "lightning_attnbal.tracking.charts._extra.find_spec",
        lambda name: None if name == "altair" else find_spec(name),
    )
    with pytest.raises(
        ModuleNotFoundError, match=r"altair: pip install 'lightning-attnbal\[report\]'"
    ):
        draw(stream)
