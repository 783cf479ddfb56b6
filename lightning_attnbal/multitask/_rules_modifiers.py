"""Share rules around another rule: bounds and priorities, and tasks that are put aside."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from typing_extensions import override

from lightning_attnbal.core import check_integer, check_number
from lightning_attnbal.multitask._rules import ShareRule, TaskStatus, normalised

_HALVINGS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounded(ShareRule):
    """Another rule's shares times priorities, moved into bounds as little as possible.

    With s the rule's shares times the priorities, scaled to sum 1, the answer is the nearest point
    to s (Euclidean) of the simplex with floor_i ≤ share_i ≤ cap_i: share_i = clip(s_i + μ, floor_i,
    cap_i) for the μ at which they sum to 1. A task that is done has no floor; it gets a share only
    where the caps of the others do not sum to 1.

    Args:
        rule: the rule inside.
        floors: by name, in [0, 1]; 0 for tasks not named.
        caps: by name, in [floor, 1]; 1 for tasks not named.
        priorities: by name, in (0, inf); 1 for tasks not named.

    Raises:
        ValueError: a number is out of range, or floors sum to more than 1; at the call: a name is
            no task, or caps sum to less than 1.

    Source: Held, Wolfe and Crowder, *Validation of subgradient optimization*, 1974 (projection on
        the simplex), with bounds.

    Example:
        >>> from lightning_attnbal.multitask import Proportional
        >>> rule = Bounded(rule=Proportional(), floors={"b": 0.25})
        >>> rule([TaskStatus(name="a", num_batches=9), TaskStatus(name="b", num_batches=1)])
        {'a': 0.75, 'b': 0.25}
    """

    rule: ShareRule
    floors: Mapping[str, float] = field(default_factory=dict)
    caps: Mapping[str, float] = field(default_factory=dict)
    priorities: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, floor in self.floors.items():
            check_number(f"floors[{name!r}]", floor, low=0, high=1)
        for name, cap in self.caps.items():
            check_number(f"caps[{name!r}]", cap, low=self.floors.get(name, 0.0), high=1)
        for name, priority in self.priorities.items():
            check_number(f"priorities[{name!r}]", priority, low=0, low_open=True)
        if sum(self.floors.values()) > 1:
            msg = f"Expected `floors` to sum to at most 1, but got {dict(self.floors)}."
            raise ValueError(msg)

    @override
    def shares(self, statuses: Sequence[TaskStatus]) -> Mapping[str, float]:
        names = [status.name for status in statuses]
        unknown = {*self.floors, *self.caps, *self.priorities} - set(names)
        if unknown:
            msg = f"Expected bounds of tasks among {', '.join(names)}, but got {sorted(unknown)}."
            raise ValueError(msg)
        caps = [self.caps.get(name, 1.0) for name in names]
        if sum(caps) < 1:
            msg = f"Expected `caps` to sum to at least 1, but got {dict(self.caps)}."
            raise ValueError(msg)
        inner = self.rule(statuses)
        wanted = normalised(statuses, [inner[n] * self.priorities.get(n, 1.0) for n in names])
        floors = [0.0 if s.is_done else self.floors.get(s.name, 0.0) for s in statuses]
        return dict(zip(names, project(list(wanted.values()), floors, caps), strict=True))


def project(point: Sequence[float], floors: Sequence[float], caps: Sequence[float]) -> list[float]:
    """The nearest point that sums to 1 with floors ≤ it ≤ caps; Σ floors ≤ 1 ≤ Σ caps.

    Example:
        >>> [round(x, 3) for x in project([0.9, 0.1, 0.0], [0.0, 0.0, 0.2], [0.7, 1.0, 1.0])]
        [0.7, 0.1, 0.2]
    """

    def moved(by: float) -> list[float]:
        bounds = zip(point, floors, caps, strict=True)
        return [min(max(x + by, low), high) for x, low, high in bounds]

    low, high = -1.0 - max(point), 1.0 + max(point)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if math.fsum(moved(middle)) < 1 else (low, middle)
    return moved(high)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopping(ShareRule):
    """Another rule's shares, with tasks put aside that have stopped learning.

    A task is put aside when the best loss of a stretch has not fallen by more than `tolerance` (of
    its size) for `patience` stretches: it is finished, or hopeless. It then gets the share `floor`
    (or the rule's, if that is less), and the others share the rest as the rule has them. It comes
    back when its last loss is above its best by more than `rise` (of its size), for others may
    have undone what it learned, and for a stretch after each `rest` stretches aside. Stretches
    without a batch count as stretches; a task without a loss is not put aside. Where all tasks
    would be, none is.

    Args:
        rule: the rule inside.
        patience: stretches, in [1, inf).
        tolerance: in [0, 1); what a stretch's mean loss scatters by noise.
        floor: share of a task put aside, in [0, 1].
        rise: in [0, inf).
        rest: stretches aside before it is tried again, in [1, inf).

    Raises:
        TypeError: a setting is not a number.
        ValueError: a setting is out of range.

    Source: own; patience and tolerance as in early stopping (Prechelt, *Early stopping – but
        when?*, 1998).

    Example:
        >>> from lightning_attnbal.multitask import Uniform
        >>> rule = Stopping(rule=Uniform(), patience=2, floor=0.125)
        >>> rule([TaskStatus(name="a", num_batches=1, losses=(2.0, 1.5, 1.2)),
        ...       TaskStatus(name="b", num_batches=1, losses=(1.0, 1.0, 1.0))])
        {'a': 0.875, 'b': 0.125}
    """

    rule: ShareRule
    patience: int = 3
    tolerance: float = 0.01
    floor: float = 0.02
    rise: float = 0.05
    rest: int = 10

    def __post_init__(self) -> None:
        check_integer("patience", self.patience, low=1)
        check_number("tolerance", self.tolerance, low=0, high=1, high_open=True)
        check_number("floor", self.floor, low=0, high=1)
        check_number("rise", self.rise, low=0)
        check_integer("rest", self.rest, low=1)

    @override
    def shares(self, statuses: Sequence[TaskStatus]) -> Mapping[str, float]:
        inner = self.rule(statuses)
        aside = {s.name: min(self.floor, inner[s.name]) for s in statuses if self.is_aside(s)}
        going = sum(share for name, share in inner.items() if name not in aside)
        if not going:
            return inner
        factor = (1 - sum(aside.values())) / going
        return {name: aside.get(name, share * factor) for name, share in inner.items()}

    def is_aside(self, status: TaskStatus) -> bool:
        """Whether the task is put aside for the next stretch.

        Example:
            >>> from lightning_attnbal.multitask import Uniform
            >>> rule = Stopping(rule=Uniform(), patience=2, rest=2)
            >>> losses = (1.0, 1.0, 1.0, 1.0, 1.0, 1.0)
            >>> [rule.is_aside(TaskStatus(name="a", num_batches=1, losses=losses[:n]))
            ...  for n in range(1, 7)]
            [False, False, True, True, False, True]
        """
        best, since = math.inf, 0
        last = best
        for j, loss in enumerate(status.losses):
            if not math.isfinite(loss):
                continue
            if loss < best - self.tolerance * abs(best) or math.isinf(best):
                best, since = loss, j
            last = loss
        stuck = len(status.losses) - 1 - since - self.patience
        has_risen = last > best + self.rise * abs(best)
        is_tried = stuck % (self.rest + 1) == self.rest
        return stuck >= 0 and math.isfinite(best) and not has_risen and not is_tried
