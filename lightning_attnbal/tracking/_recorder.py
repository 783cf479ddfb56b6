"""Writes the event stream down, once, and finds it again after a crash."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

from lightning_attnbal.tracking._event import FORMAT_VERSION, Event, parse_event
from lightning_attnbal.tracking._events import Notice

EventT = TypeVar("EventT", bound=Event)


class Recorder:
    """Keeps the events of a run in memory and, one JSON line each, in a file (`attnbal.jsonl`).

    The file only ever grows. On resume it is cut back to the events the checkpoint knows, so that
    what a killed run recorded after its last checkpoint does not appear twice. A file of another
    run in the same place is set aside (`attnbal.1.jsonl`), never overwritten or extended.

    Only one process may record to a path; on other ranks leave it out.

    Args:
        path: the file, its folder made when needed; None records in memory only.
        clock: seconds from any origin, never falling.

    Raises:
        ValueError: on resume, an event in the file cannot be read.

    Example:
        >>> recorder = Recorder()
        >>> recorder.record(Notice(step=2, text="calibrated")).sequence
        0
        >>> recorder.record(Notice(step=9, text="plan kept")).sequence
        1
        >>> [event.step for event in recorder.events]
        [2, 9]
    """

    def __init__(
        self, path: str | Path | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.path = None if path is None else Path(path)
        self.events: list[Event] = []
        self._clock = clock
        self._start = clock()
        self._num_events = 0
        self._file = ""  # fingerprint of its first line
        self._owns_file = False

    def record(self, event: EventT) -> EventT:
        """Stamp an event with its place in the stream and the time, keep, write and return it."""
        stamped = replace(event, sequence=self._num_events, elapsed_seconds=self._elapsed())
        if self.path is not None:
            self._write(self.path, stamped.to_json().encode())
        self.events.append(stamped)
        self._num_events += 1
        return stamped

    def state_dict(self) -> dict[str, Any]:
        """How many events there are, in which file, and the time so far."""
        return {
            "num_events": self._num_events,
            "file": self._file,
            "elapsed_seconds": self._elapsed(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on after the saved number of events; later ones are cut off, lost ones reported."""
        self._num_events, self._file = state["num_events"], state["file"]
        self._start = self._clock() - state["elapsed_seconds"]
        lines = [] if self.path is None else self._saved_lines(self.path)
        self.events = _parse(lines)
        if self.path is not None and lines:
            _write_atomically(self.path, b"".join(line + b"\n" for line in lines))
            self._owns_file = True
        lost = self._num_events - (self.events[-1].sequence + 1 if self.events else 0)
        if lost:
            self.record(Notice(text=f"{lost} earlier events of this run are not recorded here."))

    def _saved_lines(self, path: Path) -> list[bytes]:
        """The lines up to the checkpoint; none if the file is absent or another run's."""
        lines = _complete_lines(path) if path.exists() else []
        if not lines or _fingerprint(lines[0]) != self._file:
            return []
        # the file of a run resumed elsewhere begins with a later event
        return lines[: self._num_events - _parse(lines[:1])[0].sequence]

    def _write(self, path: Path, line: bytes) -> None:
        if not self._owns_file:
            _make_room(path)
            self._file, self._owns_file = _fingerprint(line), True
        with path.open("ab") as file:
            file.write(line + b"\n")

    def _elapsed(self) -> float:
        return self._clock() - self._start


def read_events(path: str | Path) -> list[Event]:
    """The events in a file, each checked; a last line cut short by a kill is dropped.

    A file of an older format is read as one of this.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a line is no event; the message gives its number.
    """
    return _parse(_complete_lines(Path(path)))


def _complete_lines(path: Path) -> list[bytes]:
    """The lines that end in a line feed: what follows the last one was cut short."""
    return path.read_bytes().split(b"\n")[:-1]


def _parse(lines: list[bytes]) -> list[Event]:
    events, version = [], FORMAT_VERSION
    for number, line in enumerate(lines, start=1):
        event, version = _parse_line(line, number, version)
        events.append(event)
    return events


def _parse_line(line: bytes, number: int, version: int) -> tuple[Event, int]:
    """The event and the format it was written in, by default that of the line before."""
    try:
        return parse_event(line.decode(), version)
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        msg = f"Expected line {number} to be an event, but it is not: {error}"
        raise ValueError(msg) from error


def _make_room(path: Path) -> None:
    """Make the folder and set another run's file aside."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        names = (path.with_name(f"{path.stem}.{i}{path.suffix}") for i in count(1))
        path.rename(next(name for name in names if not name.exists()))


def _fingerprint(line: bytes) -> str:
    """Identifies a file by its first line, which holds the time it was begun."""
    return hashlib.sha256(line).hexdigest()[:16]


def _write_atomically(path: Path, content: bytes) -> None:
    """Replace a file so that a kill leaves either the old or the new one."""
    temporary = path.with_name(f"{path.name}.tmp")
    temporary.write_bytes(content)
    os.replace(temporary, path)
