"""What stands where in a report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lightning_attnbal.tracking.charts._drawing import Table
from lightning_attnbal.tracking.charts._stream import Stream
from lightning_attnbal.tracking.report._decisions import Decision, decisions
from lightning_attnbal.tracking.report._facts import (
    Fact,
    ending,
    environment,
    headline,
    notices,
)
from lightning_attnbal.tracking.report._pictures import Hints, Picture, picture
from lightning_attnbal.tracking.report._units import costliest, critical_path

_SECTIONS = {
    "The plan": ("plan",),
    "Where the compute went": (
        "time",
        "load",
        "contribution",
        "cost",
        "budget",
        "cost_error",
        "learning_rate",
    ),
    "What it bought": ("scores", "forecast", "frontier"),
    "Attention": ("attention_entropy", "attention_importance"),
    "Tasks": ("shares", "affinity"),
}


@dataclass(frozen=True)
class RunPage:
    """Everything a report shows of one run.

    Args:
        anchor: name of its section in the page.
        name: of the run.
        facts: the headline.
        ending: why the run ended.
        sections: heading → pictures.
        costliest: the bottleneck; None where no cost was measured.
        path: sentences on the critical path.
        decisions: in words.
        num_left_out: decisions that were left out.
        notices: what a reader should know.
        environment: what is needed to repeat the run.
    """

    anchor: str
    name: str
    facts: Sequence[Fact]
    ending: str
    sections: dict[str, list[Picture]]
    costliest: Table | None
    path: Sequence[str]
    decisions: Sequence[Decision]
    num_left_out: int
    notices: Table | None
    environment: Table | None


def lay_out(name: str, stream: Stream, anchor: str, *, max_marks: int, hints: Hints) -> RunPage:
    """Draw and tell one run.

    Args:
        name: of the run.
        stream: its events.
        anchor: unlike the page's other anchors.
        max_marks: most bars or cells in one picture.
        hints: how marks say what they show.
    """
    sections = {
        heading: [
            found
            for figure in figures
            if (found := picture(stream, figure, f"{anchor}-", max_marks, hints)) is not None
        ]
        for heading, figures in _SECTIONS.items()
    }
    told, num_left_out = decisions(stream)
    return RunPage(
        anchor=anchor,
        name=name,
        facts=headline(stream),
        ending=ending(stream),
        sections={heading: found for heading, found in sections.items() if found},
        costliest=costliest(stream),
        path=critical_path(stream),
        decisions=told,
        num_left_out=num_left_out,
        notices=notices(stream),
        environment=environment(stream),
    )
