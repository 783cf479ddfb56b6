"""The report as one file."""

from __future__ import annotations

from pathlib import Path

from lightning_attnbal.tracking.charts._extra import check_report_extra
from lightning_attnbal.tracking.report._runs import Runs, named_runs

_MARKS = 1500  # bars or cells in a picture of a report with one run; several share them


def render_report(runs: Runs) -> str:
    """One run or several as a page of HTML that needs nothing but itself.

    The pictures are SVG drawn beforehand, so the page has no plotting library in it. Every mark can
    be pointed at or reached with Tab and the arrow keys, and says what it shows and why. The page
    may load and send nothing (Content-Security-Policy), and runs no script but its own.

    Args:
        runs: name → events; or files (`attnbal.jsonl`), or the folders they are in.

    Raises:
        FileNotFoundError: there is no such file.
        ModuleNotFoundError: Altair, vl-convert or Jinja2 is not installed.
        TypeError: a single path was given instead of a sequence.
        ValueError: there is no run, a run has no events, or a line of a file is no event.

    Example:
        >>> from lightning_attnbal.tracking import Notice
        >>> "cache refilled" in render_report({"first": [Notice(text="cache refilled")]})
        True
    """
    check_report_extra()
    from lightning_attnbal.tracking.charts._stream import Stream
    from lightning_attnbal.tracking.report._facts import comparison
    from lightning_attnbal.tracking.report._page import fill
    from lightning_attnbal.tracking.report._pictures import compare_scores
    from lightning_attnbal.tracking.report._sections import lay_out

    streams = {name: Stream.of(events) for name, events in named_runs(runs).items()}
    max_marks = max(100, _MARKS // len(streams))
    pages = [
        lay_out(name, stream, f"run-{i}", max_marks=max_marks, hints="script")
        for i, (name, stream) in enumerate(streams.items(), start=1)
    ]
    several = len(streams) > 1
    return fill(
        "report.html.j2",
        pages=pages,
        comparison=comparison(streams) if several else None,
        scores=compare_scores(streams) if several else None,
    )


def write_report(runs: Runs, path: str | Path) -> Path:
    """Write the report of one run or several to a file, and return its path.

    Args:
        runs: name → events; or files (`attnbal.jsonl`), or the folders they are in.
        path: the file; its folder is made when needed, and an older report is replaced.

    Raises:
        FileNotFoundError: there is no such run.
        ModuleNotFoundError: Altair, vl-convert or Jinja2 is not installed.
        TypeError: a single path was given instead of a sequence.
        ValueError: there is no run, a run has no events, or a line of a file is no event.

    Example:
        >>> from tempfile import mkdtemp
        >>> from lightning_attnbal.tracking import Notice
        >>> write_report({"first": [Notice(text="hello")]}, f"{mkdtemp()}/report.html").name
        'report.html'
    """
    page = render_report(runs)
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(page, encoding="utf-8")
    return target
