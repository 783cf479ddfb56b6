"""The runs of a report, by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from lightning_attnbal.tracking._event import Event
from lightning_attnbal.tracking._recorder import read_events

FILE_NAME = "attnbal.jsonl"

Runs: TypeAlias = Mapping[str, Sequence[Event]] | Sequence[str | Path]


def named_runs(runs: Runs) -> dict[str, Sequence[Event]]:
    """Name → events; a file, or a folder with a file in it, is named after its folder.

    Raises:
        FileNotFoundError: there is no such file.
        TypeError: a single path was given instead of a sequence.
        ValueError: there is no run, a run has no events, or a line of a file is no event.
    """
    if isinstance(runs, str | Path):
        msg = f"Expected `runs` to be a sequence of paths or a mapping, but got {runs!r}."
        raise TypeError(msg)
    named = dict(runs) if isinstance(runs, Mapping) else _read(runs)
    if not named:
        msg = "Expected `runs` to hold at least one run, but it is empty."
        raise ValueError(msg)
    for name, events in named.items():
        if not events:
            msg = f"Expected each run to have events, but {name!r} has none."
            raise ValueError(msg)
    return named


def _read(paths: Sequence[str | Path]) -> dict[str, Sequence[Event]]:
    named: dict[str, Sequence[Event]] = {}
    for path in map(Path, paths):
        file = path / FILE_NAME if path.is_dir() else path
        name = file.resolve().parent.name or file.stem
        number = 1 + sum(known == name or known.startswith(f"{name} (") for known in named)
        named[name if number == 1 else f"{name} ({number})"] = read_events(file)
    return named
