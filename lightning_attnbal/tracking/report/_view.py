"""The report in a notebook."""

from __future__ import annotations

from collections.abc import Sequence

from lightning_attnbal.tracking._event import Event
from lightning_attnbal.tracking.charts._extra import check_report_extra

_MARKS = 600


class ReportView:
    """A run as a notebook shows it: headline, pictures and decisions, without any script.

    Args:
        events: the stream.

    Raises:
        ModuleNotFoundError: Altair, vl-convert or Jinja2 is not installed.

    Example:
        >>> from lightning_attnbal.tracking import Notice
        >>> ReportView([Notice(text="cache refilled")])
        ReportView(1 events)
    """

    def __init__(self, events: Sequence[Event]) -> None:
        check_report_extra()
        self._events = tuple(events)

    def __repr__(self) -> str:
        return f"ReportView({len(self._events)} events)"

    def _repr_html_(self) -> str:
        """What notebooks call to show the value of a cell."""
        from lightning_attnbal.tracking.charts._stream import Stream
        from lightning_attnbal.tracking.report._page import fill
        from lightning_attnbal.tracking.report._sections import lay_out

        page = lay_out("run", Stream.of(self._events), "run", max_marks=_MARKS, hints="title")
        return fill("fragment.html.j2", page=page)
