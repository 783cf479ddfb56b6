"""Runs side by side: figures, differences, order, and what cannot be compared."""

from __future__ import annotations

import io
import json
import math
import re
from dataclasses import replace

import pytest
from rich.console import Console

from lightning_attnbal.core import Dimension
from lightning_attnbal.tracking import (
    CostSpent,
    FrontierPoint,
    FrontierSolved,
    Notice,
    PlanDecided,
    RunEnded,
    RunOutcome,
    RunStarted,
    ScoresMeasured,
    compare_runs,
)


def change(run, kind, **fields):
    """The run with fields of one kind of event replaced."""
    return [replace(event, **fields) if isinstance(event, kind) else event for event in run]


def scored(run, **scores):
    return [*run[:-1], ScoresMeasured(step=40, scores=scores), run[-1]]


def printed(comparison, width=80, *, terminal=False):
    console = Console(width=width, file=io.StringIO(), force_terminal=terminal, no_color=True)
    console.print(comparison)
    return re.sub(r"\x1b\[[\d;]*m", "", console.file.getvalue())


def test_outcome_reads_the_figures_of_a_run(run):
    outcome = RunOutcome.of("mine", scored(run, accuracy=0.5))
    figures = (outcome.spent, outcome.limit, outcome.reference, outcome.seconds, outcome.steps)
    assert figures == (90.0, 100.0, 250.0, 9.0, 40)
    assert outcome.saved == pytest.approx(0.64)
    assert (outcome.budget, outcome.ended) == ("40% of the full run", "no gain left")
    assert outcome.scores == {"accuracy": 0.5}
    assert outcome.units == {"embeddings": 1000, "layer.0": 2000, "layer.1": 3000, "head": 4000}
    assert outcome.host == "cpu, 1 threads"


def test_scores_and_forecast_are_the_last_ones_that_were_known(run):
    points = [
        FrontierPoint(plan="a", cost=1, value=1, steps=1, loss=loss, error=0.1, is_chosen=chosen)
        for loss, chosen in ((0.9, False), (0.7, True))
    ]
    later = FrontierPoint(plan="b", cost=1, value=1, steps=1, is_chosen=True)
    events = [
        *run,
        ScoresMeasured(scores={"loss": 2.0, "f1": 0.1}),
        FrontierSolved(points=tuple(points)),
        ScoresMeasured(scores={"loss": 1.0}),
        FrontierSolved(points=(later,)),
    ]
    outcome = RunOutcome.of("mine", events)
    assert outcome.scores == {"loss": 1.0, "f1": 0.1}
    assert (outcome.forecast, outcome.forecast_error) == (0.7, 0.1)


def test_a_killed_run_has_the_figures_so_far(run):
    outcome = RunOutcome.of("mine", run[:-1])
    assert (outcome.spent, outcome.limit, outcome.ended) == (90.0, 100.0, "")
    assert "mine has not ended, or was killed" in compare_runs({"mine": run[:-1]}).notes[0]


def test_a_stream_that_only_began_says_little():
    outcome = RunOutcome.of("mine", [Notice(text="hello")])
    assert all(map(math.isnan, (outcome.spent, outcome.limit, outcome.saved, outcome.seconds)))
    data = outcome.to_dict()
    assert (data["spent"], data["saved"], data["dimension"], data["budget"]) == (None,) * 3 + ("",)


def test_cheapest_first_and_differences_to_the_first_named(run):
    dear = change(run, RunEnded, spent=99.0)
    dear = change(dear, CostSpent, seconds=18.0)
    comparison = compare_runs({"dear": scored(dear, f1=0.8), "cheap": scored(run, f1=0.75)})
    assert [outcome.name for outcome in comparison.runs] == ["cheap", "dear"]
    data = comparison.to_dict()
    assert data["base"] == "dear"
    cheap, base = (entry["difference"] for entry in data["runs"])
    assert cheap["spent"] == pytest.approx(90 / 99 - 1)
    assert (cheap["seconds"], cheap["steps"]) == (-0.5, 0.0)
    assert cheap["scores"] == pytest.approx({"f1": -0.05})
    assert {base["spent"], base["seconds"], base["steps"], base["scores"]["f1"]} == {0.0}
    assert json.loads(json.dumps(data, allow_nan=False)) == data


def test_a_metric_sorts_highest_first_and_shows_only_itself(run):
    runs = {name: scored(run, f1=f1, loss=1.0) for name, f1 in (("a", 0.1), ("b", 0.9))}
    comparison = compare_runs({**runs, "none": run}, metric="f1")
    assert [outcome.name for outcome in comparison.runs] == ["b", "a", "none"]
    text = printed(comparison)
    assert "f1" in text
    assert "loss" not in text.replace("forecast loss", "")


def test_other_units_and_other_dimensions_are_said_and_not_subtracted(run):
    other = change(run, RunStarted, dimension=Dimension.SECOND, units=())
    comparison = compare_runs({"a": run, "b": other})
    notes = " ".join(comparison.notes)
    assert "the budget of b counts seconds, that of a flops" in notes
    assert "b has 0 units with 0 parameters, a 4 with 10,000; it is another model" in notes
    assert comparison.to_dict()["runs"][1]["difference"]["spent"] is None


def test_times_of_other_machines_are_not_comparable(run):
    faster = replace(run[0].environment, device="NVIDIA H100")
    notes = compare_runs({"a": run, "b": change(run, RunStarted, environment=faster)}).notes
    assert notes == (
        "Times are not comparable: b and a ran on NVIDIA H100, 1 threads and cpu, 1 threads.",
    )


@pytest.mark.parametrize("terminal", [True, False], ids=["terminal", "pipe"])
def test_table_fits_into_80_columns(run, terminal):
    scores = {f"validation/metric_{i}": 0.5 + i for i in range(6)}
    names = ("a-rather-long-name-of-a-run", "lightning_logs/version_1", "c")
    text = printed(compare_runs({n: scored(run, **scores) for n in names}), terminal=terminal)
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    assert "Not shown: validation/metric_4, validation/metric_5." in text
    assert ("─" in text) is terminal


def test_names_cannot_steer_the_terminal(run):
    text = printed(compare_runs({"[red]\x1b[2Jevil": scored(run, **{"\x07[b]f1": 0.5})}))
    assert "[red]\N{REPLACEMENT CHARACTER}[2Jevil" in text
    assert "\x1b" not in text
    assert "\x07" not in text


def test_runs_without_scores_have_no_second_table(run):
    plain = [event for event in run if not isinstance(event, PlanDecided)]
    assert "forecast" not in printed(compare_runs({"a": plain}))


@pytest.mark.parametrize(
    ("runs", "metric", "message"),
    [
        pytest.param({}, None, "Expected `runs` to hold a run", id="none"),
        pytest.param({"a": []}, None, "Expected run 'a' to hold events", id="empty"),
        pytest.param(
            {"a": [ScoresMeasured(scores={"f1": 0.5})]},
            "f2",
            "Expected `metric` to be one of f1, but got 'f2'",
            id="unknown metric",
        ),
    ],
)
def test_what_cannot_be_compared_is_refused(runs, metric, message):
    with pytest.raises(ValueError, match=message):
        compare_runs(runs, metric)
