"""Each moment is shown once, each epoch closed once, and no view can stop a run."""

from importlib import util

import pytest

from lightning_attnbal.core import Plan
from lightning_attnbal.tracking import CostSpent, Notice, PlanDecided, RunEnded
from lightning_attnbal.tracking.views import (
    Content,
    Frame,
    Illustrator,
    Publisher,
    View,
    decision_rows,
    draw_figures,
    unit_rows,
)
from tests.unit.tracking.views.story import SCALARS, UNITS, draw_white, first_epoch, story


class Album(View):
    """Keeps every frame."""

    shows = frozenset(Content)

    def __init__(self):
        self.frames = []

    def show(self, frame):
        self.frames.append(frame)

    @property
    def closing(self):
        return [frame for frame in self.frames if frame.units]


class Broken(View):
    shows = frozenset({Content.SCALARS})

    def show(self, frame):
        raise OSError("disk full")


class Clock:
    """Every look takes a second."""

    now = 0.0

    def __call__(self):
        self.now += 1.0
        return self.now


def publisher(*views, draw=draw_white, share=1.0):
    return Publisher(views, Illustrator(draw, share=share, clock=Clock()))


def scalars(frames):
    return {(key, f.step): value for f in frames for key, value in f.scalars.items()}


def test_a_stream_is_shown_frame_by_frame():
    album = Album()
    publisher(album).publish(story())
    assert [(f.step, f.epoch) for f in album.frames] == [
        (0, 0), (5, 0), (8, 0), (10, 0), (10, 0), (12, 1), (15, 1), (20, 1), (20, 1),
    ]  # fmt: skip
    assert [event.sequence for f in album.frames for event in f.events] == list(range(len(story())))
    assert scalars(album.frames) == SCALARS
    assert {frame.started for frame in album.frames} == {story()[0]}


def test_each_epoch_is_closed_once_with_units_and_figures():
    album = Album()
    publisher(album).publish(story())
    assert [(f.epoch, f.step, f.is_last) for f in album.closing] == [(0, 10, False), (1, 20, True)]
    assert [sorted(f.figures) for f in album.frames if f.figures] == [["budget", "plan"]] * 2
    assert [[row.unit for row in f.units] for f in album.closing] == [[*UNITS], [*UNITS, *UNITS]]


def test_event_by_event_shows_the_same():
    whole, grown = Album(), Album()
    publisher(whole).publish(story())
    growing = publisher(grown)
    for n in range(1, len(story()) + 1):
        growing.publish(story()[:n])
    assert scalars(grown.frames) == scalars(whole.frames)
    assert grown.closing[0] == whole.closing[0]
    assert [(f.epoch, f.units) for f in grown.closing] == [
        (f.epoch, f.units) for f in whole.closing
    ]


def test_a_resumed_run_shows_only_what_is_new():
    album = Album()
    resumed = publisher(album)
    resumed.skip(first_epoch())
    resumed.publish(story())
    assert [frame.step for frame in album.frames] == [12, 15, 20, 20]
    assert scalars(album.frames)["attnbal/budget/share", 20] == 0.75
    assert album.frames[0].started == first_epoch()[0]


def test_a_run_that_broke_off_still_gets_its_tables_and_figures():
    album = Album()
    broken_off = publisher(album)
    broken_off.publish(story()[:8])
    broken_off.close(story()[:8])
    broken_off.close(story()[:8])
    assert [(f.epoch, f.is_last, sorted(f.figures)) for f in album.closing] == [
        (0, False, ["budget", "plan"])
    ]


def test_closing_a_run_that_ended_shows_nothing_twice():
    album = Album()
    ended = publisher(album)
    ended.publish(story())
    ended.close(story())
    assert len(album.closing) == 2


def test_an_epoch_without_a_step_is_none():
    """Lightning counts the epoch on before it says that training is over."""
    album = Album()
    plan = PlanDecided(step=8, plan=Plan({"head": "full"}), spent=0.0, remaining=9.0)
    cost = CostSpent(step=8, epoch=1, spent=8.0, planned=8.0, seconds=1.0, flops=8.0)
    end = RunEnded(step=8, epoch=1, why="over", spent=8.0, limit=9.0)
    growing = publisher(album)
    for n in (1, 2, 3):
        growing.publish([plan, cost, end][:n])
    assert [(f.epoch, f.is_last) for f in album.closing] == [(0, True)]


def test_drawing_waits_until_the_run_can_afford_it_but_the_end_is_drawn():
    album = Album()
    frugal = publisher(album, share=0.0)
    frugal.publish([*story()[:8], *story()[8:]])
    assert [sorted(f.figures) for f in album.closing] == [["budget", "plan"]] * 2
    costs = [CostSpent(step=e + 1, epoch=e, elapsed_seconds=60.0 * e, **ACCOUNT) for e in range(4)]
    plan = PlanDecided(plan=Plan({"head": "full"}), spent=0.0, remaining=9.0)
    slow = Album()
    publisher(slow, share=0.01).publish([plan, *costs])
    assert [bool(f.figures) for f in slow.closing] == [True, False, True]


ACCOUNT = {"spent": 1.0, "planned": 1.0, "seconds": 1.0, "flops": 1.0}


def test_a_view_that_fails_is_dropped_and_the_others_go_on():
    album = Album()
    both = publisher(Broken(), album)
    with pytest.warns(RuntimeWarning, match="Broken shows this run no longer: OSError: disk full"):
        both.publish(story())
    assert scalars(album.frames) == SCALARS


def test_a_drawing_that_fails_leaves_the_rest():
    def fails(events):
        raise ValueError("no colour")

    album = Album()
    with pytest.warns(RuntimeWarning, match="figures .* left out: ValueError: no colour"):
        publisher(album, draw=fails).publish(story())
    assert [bool(f.units) for f in album.closing] == [True, True]
    assert all(not f.figures for f in album.frames)


def test_nothing_is_drawn_for_nobody():
    drawn = []
    publisher(draw=drawn.append).publish(story())
    assert drawn == []


def test_the_figures_are_those_of_the_charts():
    pictures = draw_figures(story())
    assert {picture[:8] for picture in pictures.values()} == {b"\x89PNG\r\n\x1a\n"}


def test_without_the_packages_nothing_is_drawn_and_it_is_said(monkeypatch):
    find = util.find_spec
    monkeypatch.setattr(
        "lightning_attnbal.tracking.views._figures.find_spec",
        lambda name: None if name == "vl_convert" else find(name),
    )
    assert draw_figures(story()) == {}
    gaps = publisher(Album()).gaps
    assert gaps == "Not shown in figures everywhere (pip install 'lightning-attnbal[report]')."


@pytest.mark.parametrize("share", [-0.1, 1.5])
def test_the_share_of_drawing_has_a_range(share):
    with pytest.raises(ValueError, match=r"Expected `share` to be in \[0, 1\]"):
        Illustrator(draw_white, share=share)


def test_nothing_comes_after_the_last_frame():
    view = Album()
    view(Frame(step=3, epoch=0, is_last=True))
    with pytest.raises(ValueError, match="no frame after the last one, but got one of step 4"):
        view(Frame(step=4, epoch=0))


def test_unit_rows_hold_share_contribution_and_reason():
    rows = {(row.task, row.unit): row for row in unit_rows(story(), epoch=1)}
    head, layer = rows["main", "head"], rows["b", "layer.0"]
    assert (head.level, head.cost_share, head.contribution) == ("full", 0.25, 0.5)
    assert head.reason == "0.25 per FLOP against λ = 0.125"
    assert (layer.level, layer.cost_share, layer.epoch) == ("frozen", 0.125, 1)
    assert str(layer.contribution) == "nan"


def test_unit_rows_before_anything_was_measured():
    plan = PlanDecided(plan=Plan({"head": "full"}), spent=0.0, remaining=9.0)
    (row,) = unit_rows([plan], epoch=0)
    assert (str(row.cost_share), str(row.contribution)) == ("nan", "nan")


def test_decision_rows_hold_changes_and_reason():
    first, second = decision_rows(story())
    assert (first.step, first.changes, first.reason) == (8, "layer.0: full → cached", "it pays")
    assert (second.task, second.plan) == (
        "b",
        "frozen: layer.0 · full: <script>alert(1)</script>, head",
    )


def test_a_notice_alone_is_a_frame():
    album = Album()
    publisher(album).publish([Notice(text="hello")])
    assert [(f.step, len(f.events), dict(f.scalars)) for f in album.frames] == [(0, 1, {})]
