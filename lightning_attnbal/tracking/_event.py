"""What all events of the stream share, and how they become lines of JSON and come back."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import ClassVar, NoReturn

from lightning_attnbal.core import check_choice, check_integer
from lightning_attnbal.tracking._codec import decode_fields, encode
from lightning_attnbal.tracking._migration import upgrade

FORMAT_VERSION = 2
_KINDS: dict[str, type[Event]] = {}


@dataclass(frozen=True, kw_only=True)
class Event:
    """One thing that happened in a run. A subclass names its `kind`, and is known to `from_json`.

    Args:
        step: optimizer steps taken so far, zero-based.
        epoch: zero-based.
        sequence: position in the stream, zero-based; stamped by the recorder.
        elapsed_seconds: wall-clock time since the run started, over resumes; stamped by the
            recorder.

    Example:
        >>> from lightning_attnbal.tracking import Notice
        >>> line = Notice(step=3, text="cache refilled").to_json()
        >>> Event.from_json(line)
        Notice(step=3, epoch=0, sequence=0, elapsed_seconds=0.0, text='cache refilled')
    """

    kind: ClassVar[str]

    step: int = 0
    epoch: int = 0
    sequence: int = 0
    elapsed_seconds: float = 0.0

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        _KINDS[cls.kind] = cls

    def to_json(self) -> str:
        """One line of JSON, the kind first; NaN and infinities become null."""
        data = {"kind": self.kind, **encode(self)}
        return json.dumps(data, ensure_ascii=False, allow_nan=False)

    @staticmethod
    def from_json(text: str) -> Event:
        """The event that `to_json` wrote. The text is data from outside: only parsed and checked.

        Raises:
            TypeError: a field is of another type.
            ValueError: no JSON, an unknown kind or field, or a newer format.
        """
        return parse_event(text, FORMAT_VERSION)[0]


def parse_event(text: str, version: int) -> tuple[Event, int]:
    """An event as the current format has it, and the format it was written in.

    Args:
        text: one line of JSON.
        version: format of the stream it is from, where it does not say so itself.

    Raises:
        TypeError: a field is of another type.
        ValueError: no JSON, an unknown kind or field, or a newer format.
    """
    data = json.loads(text, parse_constant=_refuse_constant)
    if not isinstance(data, dict):
        msg = f"Expected an event to be a JSON object, but got {type(data).__name__}."
        raise TypeError(msg)
    version = _check_version(data.get("format_version", version))
    data = upgrade(data, version)
    kind = _KINDS[check_choice("kind", data.pop("kind", None), _KINDS)]
    return decode_fields(kind, data, kind.kind), version


def _check_version(version: object) -> int:
    if isinstance(version, int) and version > FORMAT_VERSION:
        msg = (
            f"Expected `format_version` to be at most {FORMAT_VERSION}, but got {version}: "
            "the file was written by a newer lightning-attnbal; update to read it."
        )
        raise ValueError(msg)
    return check_integer("format_version", version, low=1)


def _refuse_constant(name: str) -> NoReturn:
    msg = f"Expected numbers to be finite, but got {name}."
    raise ValueError(msg)
