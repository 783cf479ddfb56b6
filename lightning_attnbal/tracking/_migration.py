"""Events of older formats made events of this one, one function per step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Data = dict[str, Any]


def upgrade(data: Data, version: int) -> Data:
    """The fields and the kind of an event of format `version`, as the current format has them.

    Example:
        >>> upgrade({"kind": "run_started", "format_version": 1}, 1)
        {'kind': 'run_started', 'format_version': 2}
    """
    for step in _STEPS[version - 1 :]:
        data = step(data)
    return data


def _from_1_to_2(data: Data) -> Data:
    """Version 2 adds kinds of event (tasks, time, scores, frontier, attention) and changes none.

    What version 1 wrote stays as it is, but for the number in the first line.
    """
    return {**data, "format_version": 2} if "format_version" in data else data


_STEPS: tuple[Callable[[Data], Data], ...] = (_from_1_to_2,)  # the first starts from version 1
