"""What the bar and the table say."""

from types import SimpleNamespace

import pytest
from lightning.pytorch.callbacks import ProgressBar

from lightning_attnbal.callbacks._decision import Decision, changes
from lightning_attnbal.callbacks._progress_view import ProgressView, duration, render, short
from lightning_attnbal.core import Plan


class Bar(ProgressBar):
    is_enabled = True

    def __init__(self):
        super().__init__()
        self.lines = []

    def get_metrics(self, trainer, pl_module):
        return {"loss": 0.5}

    def print(self, *args, **kwargs):
        self.lines.append(args[0])


def decided(step, levels, reasons=None, **options):
    plan = Plan(levels, reasons=reasons or {}, method="by hand", **options)
    return Decision(plan=plan, step=step, epoch=1, spent=1.0, remaining=2.0, why="epoch end")


HISTORY = [
    decided(3, {"stem": "full", "layer.0": "full", "layer.1": "full", "head": "full"}),
    decided(
        9,
        {"stem": "cached", "layer.0": "cached", "layer.1": "frozen", "head": "full"},
        {"stem": "worth less", "layer.1": "no [bold]gain[/bold]"},
    ),
]


@pytest.fixture
def bar():
    return Bar()


@pytest.fixture
def trainer(bar):
    return SimpleNamespace(progress_bar_callback=bar, is_global_zero=True)


@pytest.mark.parametrize(
    ("levels", "text"),
    [
        (["full"] * 14, "14F"),
        (["cached", "cached", "frozen", "lora4", "local", "full"], "2c 1f 1R 1L 1F"),
        (["frozen", "detached", "full"], "1f 1d 1F"),
        (["frozen", "full"] * 4, "4f 4F"),
    ],
)
def test_plan_in_a_few_characters(levels, text):
    assert short(Plan({f"layer.{i}": level for i, level in enumerate(levels)})) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (59, "59 s"), (90, "1.5 min"), (5400, "1.5 h")]
)
def test_duration(seconds, text):
    assert duration(seconds) == text


def test_bar_shows_budget_finish_and_plan_and_is_given_back(bar, trainer):
    view = ProgressView(trainer)
    assert bar.get_metrics(trainer, None) == {"loss": 0.5}
    view.show(0.434, 126.0, HISTORY[1].plan)
    assert bar.get_metrics(trainer, None) == {
        "loss": 0.5,
        "budget": "43%",
        "eta": "2.1 min",
        "plan": "2c 1f 1F",
    }
    view.show(0.5, float("nan"), HISTORY[0].plan)
    assert bar.get_metrics(trainer, None) == {"loss": 0.5, "budget": "50%", "plan": "4F"}
    view.close()
    view.close()
    assert bar.get_metrics(trainer, None) == {"loss": 0.5}


def test_a_bar_that_somebody_else_patched_stays_so(bar, trainer):
    bar.get_metrics = theirs = lambda *_: {"theirs": 1}
    view = ProgressView(trainer)
    view.show(0.5, 1.0, HISTORY[0].plan)
    assert bar.get_metrics(trainer, None)["theirs"] == 1
    view.close()
    assert bar.get_metrics is theirs


def test_changes_are_a_table_above_the_bar(bar, trainer):
    ProgressView(trainer).announce(HISTORY)
    (text,) = bar.lines
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert lines[0] == "attnbal: step 9, epoch end"
    assert lines[1] == "units before now why"
    assert lines[3:] == [
        "stem … layer.0 (2) full cached worth less",
        "layer.1 full frozen no [bold]gain[/bold]",
        "by hand",
    ]


def test_nothing_is_said_where_nothing_changed(bar, trainer):
    ProgressView(trainer).announce([HISTORY[0], HISTORY[0]])
    assert bar.lines == []


def test_table_has_colours_in_a_terminal_only():
    found = changes(HISTORY)
    assert "\x1b[" in render(HISTORY[1], found, is_terminal=True)
    plain = render(HISTORY[1], found, is_terminal=False)
    assert "\x1b[" not in plain
    assert max(map(len, plain.splitlines())) <= 80


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"progress_bar_callback": None}, id="no bar"),
        pytest.param({"is_global_zero": False}, id="another rank"),
    ],
)
def test_silent_without_a_bar(bar, trainer, capsys, options):
    vars(trainer).update(options)
    view = ProgressView(trainer)
    view.show(0.5, 1.0, HISTORY[0].plan)
    view.announce(HISTORY)
    view.close()
    assert (bar.lines, bar.get_metrics(trainer, None)) == ([], {"loss": 0.5})
    assert capsys.readouterr().out == ""


def test_silent_where_the_bar_is_disabled(bar, trainer):
    bar.is_enabled = False
    ProgressView(trainer).announce(HISTORY)
    assert bar.lines == []
