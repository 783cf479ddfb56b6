"""The plans of an earlier run, taken again step by step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.fabric.utilities.exceptions import MisconfigurationException

from lightning_attnbal.allocate import InfeasibleMemoryError
from lightning_attnbal.callbacks._decision import Decision
from lightning_attnbal.core import CACHED, FROZEN, Dimension, Level, Problem, Unit
from lightning_attnbal.tracking import Event, PlanDecided, RunStarted, read_events

EPOCH_END = "epoch end"


class Replay:
    """The decisions of an earlier run, and how many of them were taken again.

    Args:
        path: the run's `attnbal.jsonl`, or the folder it is in.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no event stream, begins in the middle of a run, or holds no plan.

    Example:
        >>> Replay("no/such/attnbal.jsonl")
        Traceback (most recent call last):
        FileNotFoundError: Expected `replay` to be the attnbal.jsonl of an earlier run, but ...
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if self.path.is_dir():
            self.path /= "attnbal.jsonl"
        events = _read(self.path)
        started = events[0] if events else None
        self.dimension = started.dimension if isinstance(started, RunStarted) else None
        self._decisions = tuple(
            Decision(
                plan=event.plan,
                step=event.step,
                epoch=event.epoch,
                spent=event.spent,
                remaining=event.remaining,
                why=event.why,
                probe_flops=event.probe_flops,
            )
            for event in events
            if isinstance(event, PlanDecided) and event.step > 0  # calibration is no decision
        )
        self._num_taken = 0
        if not self._decisions:
            raise ValueError(_expected(self.path, "it holds no plan"))

    def take(self, step: int, *, at_epoch_end: bool = True) -> Decision | None:
        """The plan that is due after so many steps, if there is one; it counts as taken.

        Args:
            step: optimizer steps taken.
            at_epoch_end: whether one that was decided at an epoch's end may be due now.
        """
        due = None
        for recorded in self._decisions[self._num_taken :]:
            if recorded.step > step or (recorded.why == EPOCH_END and not at_epoch_end):
                break
            due = recorded
            self._num_taken += 1
        return due

    def refuse_other_run(self, units: Sequence[Unit], levels: Sequence[Level]) -> None:
        """Refuse a model or levels that the plans are not for.

        Raises:
            MisconfigurationException: names the units or levels that only one side knows.
        """
        here, there = {unit.name for unit in units}, {u for r in self._decisions for u in r.plan}
        if here != there:
            missing, extra = (", ".join(sorted(x)) or "none" for x in (there - here, here - there))
            msg = (
                f"Expected the model to have the units of the plans in {self.path}, but these are "
                f"only in the file: {missing}; and these only in the model: {extra}. Replay with "
                "the same model and `units`."
            )
            raise MisconfigurationException(msg)
        used = {level for r in self._decisions for level in r.plan.values()}
        odd = sorted(str(level) for level in used - {*levels, FROZEN})
        if odd:
            msg = (
                f"Expected `levels` to include {', '.join(odd)}, which plans in {self.path} use, "
                f"but got {', '.join(map(str, levels))}."
            )
            raise MisconfigurationException(msg)

    def check(self, problem: Problem, memory: float | None) -> None:
        """Refuse plans that cannot be had on this model; `problem` has its menus.

        Raises:
            ValueError: a plan is not valid, or a level is not on the menu of its unit.
            InfeasibleMemoryError: a plan needs more memory than the limit.
        """
        for recorded in self._decisions:
            levels = tuple(recorded.plan[menu.unit] for menu in problem.menus)
            thawed = tuple(FROZEN if level == CACHED else level for level in levels)
            name = f"the plan of step {recorded.step} in {self.path}"
            try:
                why, peak = problem.why_invalid(levels), problem.evaluate(thawed)[2]
            except ValueError as error:
                why = str(error)
            if why is not None:
                msg = f"Expected {name} to be possible on this model, but it is not: {why}"
                raise ValueError(msg)
            if memory is not None and peak > memory:
                raise InfeasibleMemoryError(memory=memory, smallest=peak, plan=name)

    @property
    def caches(self) -> bool:
        """Whether a plan caches something."""
        return any(CACHED in r.plan.values() for r in self._decisions)

    def state_dict(self) -> dict[str, Any]:
        """Plain data for a checkpoint: the plans too, for the file may be gone or another's."""
        return {
            "decisions": [recorded.to_dict() for recorded in self._decisions],
            "num_taken": self._num_taken,
            "dimension": None if self.dimension is None else self.dimension.value,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with the plans of the checkpoint."""
        self._decisions = tuple(Decision.from_dict(data) for data in state["decisions"])
        self._num_taken = int(state["num_taken"])
        found = state["dimension"]
        self.dimension = None if found is None else Dimension(found)


def _read(path: Path) -> list[Event]:
    """The stream, from its beginning."""
    try:
        events = read_events(path)
    except FileNotFoundError as error:
        raise FileNotFoundError(_expected(path, "there is no such file")) from error
    except ValueError as error:
        raise ValueError(_expected(path, f"it is none: {error}")) from error
    if events and events[0].sequence > 0:
        raise ValueError(_expected(path, "its beginning is missing"))
    return events


def _expected(path: Path, found: str) -> str:
    return f"Expected `replay` to be the attnbal.jsonl of an earlier run, but got {path}: {found}."
