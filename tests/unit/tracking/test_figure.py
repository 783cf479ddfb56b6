"""The picture and the table show what the stream says."""

import io
import sys
from importlib import util

import pytest
from rich.console import Console

from lightning_attnbal.core import CACHED, FROZEN, FULL, Plan, lora
from lightning_attnbal.tracking import (
    CostSpent,
    Notice,
    PlanDecided,
    Recorder,
    RunEnded,
    Span,
    build_timeline,
    plot_plan,
    print_summary,
)


def printed(events):
    console = Console(file=io.StringIO(), width=100)
    print_summary(events, console)
    return console.file.getvalue()


def test_timeline(run):
    timeline = build_timeline(run)
    assert timeline.spans == {
        "main": (
            Span("embeddings", CACHED, 0.1, 0.9),
            Span("layer.0", FROZEN, 0.1, 0.5),
            Span("layer.0", lora(4), 0.5, 0.9),
            Span("layer.1", FULL, 0.1, 0.9),
            Span("head", FULL, 0.1, 0.9),
        )
    }
    assert timeline.epochs == ((1, 0.5),)
    assert (timeline.limit, timeline.spent, timeline.planned) == (100.0, 90.0, 87.0)
    assert timeline.spent_text == "90.0% spent: 90 FLOP of 100 FLOP"


def test_timeline_of_a_run_that_goes_on(run):
    timeline = build_timeline(run[:6])
    assert (timeline.limit, timeline.spent) == (100.0, 50.0)
    assert timeline.spans["main"][0] == Span("embeddings", CACHED, 0.1, 0.5)


def test_figure_rows_colours_and_epochs(run):
    figure = plot_plan(run)
    plan, costs, rate = figure.axes
    assert [label.get_text() for label in plan.get_yticklabels()] == [
        "embeddings",
        "layer.0",
        "layer.1",
        "head",
    ]
    bars = [
        (bar.get_y() + bar.get_height() / 2, bar.get_x(), bar.get_width(), bar.get_facecolor())
        for bar in plan.patches
    ]
    colors = {label.get_text(): patch.get_facecolor() for label, patch in legend(plan)}
    assert list(colors) == ["full", "lora4", "frozen", "cached"]
    expected = [
        (0, 10, 80, "cached"),
        (1, 10, 40, "frozen"),
        (1, 50, 40, "lora4"),
        (2, 10, 80, "full"),
        (3, 10, 80, "full"),
    ]
    for (row, left, width, color), (*place, level) in zip(bars, expected, strict=True):
        assert (row, left, width) == pytest.approx(place)
        assert color == colors[level]
    assert [line.get_xdata()[0] for line in plan.get_lines()] == [50.0]
    assert [text.get_text() for text in plan.texts] == ["epoch 1"]
    assert figure.get_suptitle() == (
        "Budget 40% of the full run · 90.0% spent: 90 FLOP of 100 FLOP"
    )
    assert [list(line.get_ydata()) for line in costs.get_lines()[:2]] == [[50, 90], [48, 87]]
    assert list(rate.get_lines()[0].get_ydata()) == [0.1]


def legend(ax):
    found = ax.get_legend()
    return zip(found.get_texts(), found.get_patches(), strict=True)


def test_figure_without_costs_or_rates(run):
    assert len(plot_plan([run[4]]).axes) == 1
    assert len(plot_plan([run[4], run[8]]).axes) == 2


def test_figure_from_a_file_into_a_file(tmp_path, run):
    recorder = Recorder(tmp_path / "attnbal.jsonl")
    for event in run:
        recorder.record(event)
    plot_plan(str(tmp_path / "attnbal.jsonl"), tmp_path / "plan.png")
    assert (tmp_path / "plan.png").read_bytes().startswith(b"\x89PNG")


def test_figure_leaves_pyplot_alone(run):
    before = "matplotlib.pyplot" in sys.modules
    plot_plan(run)
    assert ("matplotlib.pyplot" in sys.modules) is before


def test_lora_ranks_get_shades_and_many_epochs_few_names():
    events = [
        PlanDecided(
            epoch=epoch,
            plan=Plan({f"layer.{i}": f"lora{2**i}" for i in range(6)}),
            spent=epoch / 40,
            remaining=1 - epoch / 40,
        )
        for epoch in range(40)
    ]
    ax = plot_plan(events).axes[0]
    shades = [patch.get_facecolor() for _, patch in legend(ax)]
    assert [label.get_text() for label, _ in legend(ax)] == [
        f"lora{2**i}" for i in range(5, -1, -1)
    ]
    brightness = [sum(shade) for shade in shades]
    assert brightness == sorted(brightness)
    assert len(ax.get_lines()) == 39
    assert len(ax.texts) == 10


def test_two_tasks_get_a_panel_and_a_table_each():
    def decided(task, level):
        plan = Plan({"body": level, "head": "full"}, task=task)
        return PlanDecided(plan=plan, spent=0.0, remaining=4.0)

    events = [
        decided("a", "frozen"),
        decided("b", "full"),
        RunEnded(why="done", spent=4.0, limit=4.0),
    ]
    assert [ax.get_title(loc="left") for ax in plot_plan(events).axes] == ["task a", "task b"]
    text = printed(events)
    assert text.index("task a") < text.index("frozen 100%") < text.index("task b")


def test_summary(run):
    lines = [" ".join(line.split()) for line in printed(run).splitlines()]
    assert lines[0] == (
        "40% of the full run: 90.0% spent: 90 FLOP of 100 FLOP · planned 87.0% · "
        "cache read 67% of its rows · no gain left"
    )
    assert lines[1] == "unit parameters cost levels contribution"
    assert lines[3:] == [
        "embeddings 1,000 0.0% cached 80% –",
        "layer.0 2,000 40.0% frozen 40% → lora4 40% 0.2",
        "layer.1 3,000 40.0% full 80% –",
        "head 4,000 20.0% full 80% 0.5",
    ]


def test_refusals(run):
    with pytest.raises(ValueError, match="hold a decided plan, but got 1 events without one"):
        plot_plan([Notice(text="x")])
    nothing = PlanDecided(plan=run[4].plan, spent=0.0, remaining=0.0)
    with pytest.raises(ValueError, match=r"budget in `events` to be in \(0, inf\), but got 0\.0"):
        print_summary([nothing])


def test_names_the_extra_when_matplotlib_is_missing(monkeypatch, run):
    find = util.find_spec
    monkeypatch.setattr(
        "lightning_attnbal.tracking._figure.find_spec",
        lambda name: None if name == "matplotlib" else find(name),
    )
    with pytest.raises(ModuleNotFoundError, match=r"lightning-attnbal\[plot\]"):
        plot_plan(run)


def test_spending_over_the_limit_stays_in_the_picture(run):
    over = [
        run[4],
        CostSpent(step=50, spent=104.0, planned=100.0, seconds=1.0, flops=1.0),
        RunEnded(why="the budget is spent", spent=104.0, limit=100.0),
    ]
    plan, costs = plot_plan(over).axes
    assert plan.get_xlim() == (0, 104)
    assert costs.get_ylim()[1] == 108
