"""Who gets the next steps, without a plan: one abstract call, statuses in, shares out."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from lightning_attnbal.core import check_integer, check_number


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskStatus:
    """What a share rule knows of a task.

    Args:
        name: of the task.
        num_batches: of one pass over its data, in [1, inf).
        losses: mean training loss of each stretch so far, oldest first; NaN where it got no batch.
        batches: served to it so far, in [0, inf).
        cost_per_batch: in any unit, the same for all tasks, in (0, inf).
        weight: priority, in (0, inf).
        is_done: whether it has said that it wants no more steps.

    Raises:
        TypeError: a number is not one.
        ValueError: a number is out of range.

    Example:
        >>> TaskStatus(name="rating", num_batches=40, losses=(2.0, math.nan, 1.5)).known
        (2.0, 1.5)
    """

    name: str
    num_batches: int
    losses: tuple[float, ...] = ()
    batches: int = 0
    cost_per_batch: float = 1.0
    weight: float = 1.0
    is_done: bool = False

    def __post_init__(self) -> None:
        check_integer("num_batches", self.num_batches, low=1)
        check_integer("batches", self.batches, low=0)
        check_number("cost_per_batch", self.cost_per_batch, low=0, low_open=True)
        check_number("weight", self.weight, low=0, low_open=True)
        object.__setattr__(self, "losses", tuple(float(loss) for loss in self.losses))

    @property
    def known(self) -> tuple[float, ...]:
        """The losses of the stretches in which it got batches."""
        return tuple(loss for loss in self.losses if math.isfinite(loss))


class ShareRule(ABC):
    """Shares of the next stretch of steps. Subclasses override `shares`; the call checks them.

    Rules hold settings and no state: the same statuses give the same shares, so a resumed run
    repeats them. Tasks that are done get nothing, unless all are.

    Example:
        >>> from lightning_attnbal.multitask import Proportional
        >>> statuses = [TaskStatus(name="big", num_batches=30),
        ...             TaskStatus(name="small", num_batches=10)]
        >>> Proportional()(statuses)
        {'big': 0.75, 'small': 0.25}
    """

    def __call__(self, statuses: Sequence[TaskStatus]) -> dict[str, float]:
        """Share of each task, by name, in the given order; in [0, 1] with sum 1.

        Raises:
            ValueError: there is no task, two have one name, or the rule's answer is no such shares.
        """
        twice = [name for name, n in Counter(s.name for s in statuses).items() if n > 1]
        if not statuses or twice:
            names = [status.name for status in statuses]
            msg = f"Expected `statuses` of one or more different tasks, but got {names}."
            raise ValueError(msg)
        shares = self.shares(statuses)
        is_valid = set(shares) == {s.name for s in statuses} and all(
            math.isfinite(share) and share >= 0 for share in shares.values()
        )
        if not is_valid or not math.isclose(sum(shares.values()), 1, abs_tol=1e-9):
            msg = (
                f"Expected the shares of {type(self).__name__} to be in [0, 1] with sum 1, "
                f"one per task, but got {shares}."
            )
            raise ValueError(msg)
        return {status.name: shares[status.name] for status in statuses}

    @abstractmethod
    def shares(self, statuses: Sequence[TaskStatus]) -> Mapping[str, float]:
        """Decide; called by `__call__`, which validates the answer."""


def normalised(statuses: Sequence[TaskStatus], amounts: Iterable[float]) -> dict[str, float]:
    """Amounts in [0, inf) over their sum, 0 for tasks that are done; equal ones if none is left.

    Example:
        >>> done = TaskStatus(name="a", num_batches=1, is_done=True)
        >>> normalised([done, TaskStatus(name="b", num_batches=1)], [3.0, 2.0])
        {'a': 0.0, 'b': 1.0}
    """
    kept = [
        0.0 if status.is_done else amount for status, amount in zip(statuses, amounts, strict=True)
    ]
    if not any(kept):
        open_tasks = [not status.is_done for status in statuses]
        kept = [float(is_open or not any(open_tasks)) for is_open in open_tasks]
    total = sum(kept)
    return {status.name: amount / total for status, amount in zip(statuses, kept, strict=True)}


def filled(amounts: Sequence[float | None], by: Callable[[Sequence[float]], float]) -> list[float]:
    """Amounts with what `by` makes of the known ones in place of None; 1 where none is known.

    Example:
        >>> filled([3.0, None, 5.0], max)
        [3.0, 5.0, 5.0]
    """
    known = [amount for amount in amounts if amount is not None]
    other = by(known) if known else 1.0
    return [other if amount is None else amount for amount in amounts]
