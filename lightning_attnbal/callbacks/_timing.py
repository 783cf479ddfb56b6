"""Wall-clock time of a run: what has passed, what a batch takes, what the end will take."""

from __future__ import annotations

import math
import statistics
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

_LAPS_KEPT = 16
_LAPS_NEEDED = 3


class StepClock:
    """Times batches and validations against one clock.

    Args:
        now: seconds from an arbitrary origin, never decreasing.

    Example:
        >>> ticks = iter([0.0, 1.0, 3.0, 5.0, 7.0])
        >>> clock = StepClock(now=lambda: next(ticks))
        >>> clock.start()
        >>> [clock.lap() for _ in range(4)], clock.seconds_per_batch
        ([1.0, 3.0, 5.0, 7.0], 2.0)
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._origin = math.nan
        self._last = math.nan
        self._laps: deque[float] = deque(maxlen=_LAPS_KEPT)
        self._expected = math.nan
        self._validation_began = math.nan
        self.seconds_per_validation = 0.0
        self._task = ""
        self._others: dict[str, tuple[deque[float], float]] = {}

    def turn_to(self, task: str) -> None:
        """The batches from now on are this task's; each task has laps of its own.

        Example:
            >>> clock = StepClock(now=iter([0.0, 1.0, 9.0]).__next__)
            >>> clock.start()
            >>> for task in ("short", "long"):
            ...     clock.turn_to(task)
            ...     _ = clock.lap()
            >>> clock.turn_to("short")
            >>> clock.seconds_per_batch
            1.0
        """
        if task != self._task:
            self._others[self._task] = self._laps, self._expected
            new: tuple[deque[float], float] = deque(maxlen=_LAPS_KEPT), math.nan
            self._laps, self._expected = self._others.pop(task, new)
            self._task = task

    def start(self, spent: float = 0.0) -> None:
        """Start counting, with `spent` seconds already on the clock."""
        self._last = self._now()
        self._origin = self._last - spent

    def lap(self) -> float:
        """A batch has ended: note how long it took and return the seconds since the start."""
        now = self._now()
        self._laps.append(now - self._last)
        self._last = now
        return now - self._origin

    def pause(self) -> None:
        """What passed since the last batch belongs to none: a validation, a decision."""
        self._last = self._now()

    def elapsed(self) -> float:
        """Seconds since the start."""
        return self._now() - self._origin

    @property
    def seconds_per_batch(self) -> float:
        """What a batch takes: the median of the last ones under this plan, or a forecast.

        NaN before the first.
        """
        if len(self._laps) < _LAPS_NEEDED and not math.isnan(self._expected):
            return self._expected
        return statistics.median(self._laps) if self._laps else math.nan

    def change_plan(self, ratio: float) -> None:
        """From now on a batch is expected to take `ratio` times as long, until some were timed."""
        self._expected = self.seconds_per_batch * ratio
        self._laps.clear()

    def begin_validation(self) -> None:
        """A validation starts."""
        self._validation_began = self._now()

    def end_validation(self, seen: int, whole: int) -> None:
        """A validation ended after `seen` of the `whole` batches (fewer in the sanity check)."""
        took = self._now() - self._validation_began
        self.seconds_per_validation = took * whole / max(1, seen)
        self.pause()

    def state_dict(self) -> dict[str, Any]:
        """Plain data for a checkpoint; the time spent is the ledger's."""
        return {
            "laps": list(self._laps),
            "expected": self._expected,
            "seconds_per_validation": self.seconds_per_validation,
            "task": self._task,
            "others": {task: (list(laps), t) for task, (laps, t) in self._others.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self._laps = deque(state["laps"], maxlen=_LAPS_KEPT)
        self._expected = float(state["expected"])
        self.seconds_per_validation = float(state["seconds_per_validation"])
        self._task = state["task"]
        self._others = {
            task: (deque(laps, maxlen=_LAPS_KEPT), float(expected))
            for task, (laps, expected) in state["others"].items()
        }
