"""From what was typed to the event streams of runs."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from lightning_attnbal.tracking import Event, read_events

FILE = "attnbal.jsonl"


def find_runs(places: Sequence[Path]) -> dict[str, Path]:
    """Name → file of the runs that were named, in that order; names are short and unique.

    Args:
        places: event streams, folders with an `attnbal.jsonl`, or folders with such folders
            anywhere below.

    Raises:
        OSError: a folder cannot be read.
        ValueError: a place does not exist or holds no run.
    """
    found = dict.fromkeys(path.resolve() for place in places for path in _runs_at(place))
    return dict(zip(_names(list(found)), found, strict=True))


def read_runs(places: Sequence[Path]) -> dict[str, list[Event]]:
    """Name → events of the runs that were named.

    Raises:
        OSError: something cannot be read.
        ValueError: a place holds no run, or a file is no event stream.
    """
    return {name: _read(path) for name, path in find_runs(places).items()}


def _read(path: Path) -> list[Event]:
    try:
        events = read_events(path)
    except ValueError as error:
        msg = f"Expected {str(path)!r} to be an event stream: {error}"
        raise ValueError(msg) from error
    if not events:
        msg = f"Expected {str(path)!r} to be an event stream, but it holds no complete line."
        raise ValueError(msg)
    return events


def _runs_at(place: Path) -> Iterator[Path]:
    if not place.exists():
        msg = f"Expected RUN to be a file {FILE} or a folder, but {str(place)!r} does not exist."
        raise ValueError(msg)
    if not place.is_dir():
        yield place
    elif (place / FILE).is_file():
        yield place / FILE
    else:
        yield from _runs_below(place)


def _runs_below(folder: Path) -> Iterator[Path]:
    found = sorted(
        Path(inside, FILE) for inside, _, files in os.walk(folder, onerror=_raise) if FILE in files
    )
    if not found:
        msg = f"Expected {str(folder)!r} to hold a run, but there is no {FILE} in it or below."
        raise ValueError(msg)
    yield from found


def _raise(error: OSError) -> None:
    raise error


def _names(paths: Sequence[Path]) -> list[str]:
    """What tells the paths apart: no file name, and no folders that all share, at either end."""
    parts = [(p.parent if p.name == FILE else p.with_suffix("")).parts for p in paths]
    for end in (0, -1):
        while min(map(len, parts)) > 1 and len({one[end] for one in parts}) == 1:
            parts = [one[1:] if end == 0 else one[:-1] for one in parts]
    names = ["/".join(one) for one in parts]
    return names if len(set(names)) == len(names) else [str(path) for path in paths]
