"""Where the wall-clock time of a fit goes, read off the hooks that run anyway."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import wraps
from typing import Concatenate, ParamSpec, Protocol, TypeVar

from lightning_attnbal.core import CACHED, Plan, UnitLoad
from lightning_attnbal.measure import plan_cost

FORWARD, ACTIVATION, WEIGHT = "forward", "activation_gradient", "weight_gradient"
OPTIMIZER, DATA, CACHE, PROBES = "optimizer", "data", "cache", "probes"
DECISIONS, VALIDATION, OTHER = "decisions", "validation", "other"
PARTS = (
    *(FORWARD, ACTIVATION, WEIGHT, OPTIMIZER, DATA),
    *(CACHE, PROBES, DECISIONS, VALIDATION, OTHER),
)


class Stopwatch:
    """Gives every moment to exactly one part, so that the parts sum to the time since the start.

    | part                | from … to                                                            |
    |---------------------|----------------------------------------------------------------------|
    | forward             | a batch's start … its first backward, without reading the cache      |
    | activation_gradient | backward, less the next                                              |
    | weight_gradient     | the share of backward that dW has in the FLOPs of the plan in force  |
    | optimizer           | the end of backward … the end of the batch                           |
    | data                | the end of a batch … the start of the next: waiting for the loader   |
    | cache               | what the prefix cache says that reading took                         |
    | probes              | looking at what frozen units would be worth                          |
    | decisions           | our own hooks: counting, booking, solving, recording                 |
    | validation          | a validation, the sanity check included                              |
    | other               | the rest: set-up, checkpoints at the end of an epoch or validation   |

    A part holds what other callbacks do at that moment. The split of backward is a model, not a
    measurement: both gradients are taken to run at the same FLOP/s. On an accelerator the host's
    clock is read without waiting for the device, so work shows up where the host next waits for it
    (often in `optimizer`, or where a loss is read); sums over a step stay right.

    Args:
        now: seconds from an arbitrary origin, never falling.

    Example:
        >>> watch = Stopwatch(now=iter([0.0, 1.0, 3.0, 3.5]).__next__)
        >>> watch.start()
        >>> for part in ("forward", "activation_gradient", "optimizer"):
        ...     watch.turn_to(part)
        >>> watch.move("activation_gradient", "weight_gradient", 0.25)
        >>> {part: seconds for part, seconds in watch.seconds.items() if seconds}
        {'forward': 2.0, 'activation_gradient': 0.25, 'weight_gradient': 0.25, 'other': 1.0}
    """

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        self._now = now
        self._part = OTHER
        self._since = 0.0
        self.seconds = dict.fromkeys(PARTS, 0.0)
        self.lap = 0.0  # length of the stretch that ended last

    def start(self) -> None:
        """Begin to count, with nothing on the clock."""
        self.seconds = dict.fromkeys(PARTS, 0.0)
        self._part, self._since = OTHER, self._now()

    def turn_to(self, part: str) -> None:
        """What passes from now on belongs to `part`."""
        now = self._now()
        self.lap = now - self._since
        self.seconds[self._part] += self.lap
        self._part, self._since = part, now

    @contextmanager
    def during(self, part: str) -> Iterator[None]:
        """What passes inside belongs to `part`, and to the part before from then on."""
        before = self._part
        self.turn_to(part)
        try:
            yield
        finally:
            self.turn_to(before)

    def move(self, source: str, target: str, seconds: float) -> None:
        """Some of what `source` got belongs to `target`."""
        self.seconds[source] -= seconds
        self.seconds[target] += seconds

    def read(self) -> dict[str, float]:
        """Seconds by part, up to now."""
        self.turn_to(self._part)
        return dict(self.seconds)

    @property
    def part(self) -> str:
        """What time belongs to now."""
        return self._part

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Go on from what `read` gave; what passed since the start was not training and is lost."""
        self.start()
        self.seconds |= {part: float(seconds) for part, seconds in state.items()}


class _Timed(Protocol):
    _stopwatch: Stopwatch


Owner = TypeVar("Owner", bound=_Timed)
Params = ParamSpec("Params")
Result = TypeVar("Result")


def timed(
    then: str,
) -> Callable[
    [Callable[Concatenate[Owner, Params], Result]], Callable[Concatenate[Owner, Params], Result]
]:
    """A hook whose own time is for decisions, and after which `then` begins."""

    def wrap(
        hook: Callable[Concatenate[Owner, Params], Result],
    ) -> Callable[Concatenate[Owner, Params], Result]:
        @wraps(hook)
        def run(self: Owner, /, *args: Params.args, **kwargs: Params.kwargs) -> Result:
            watch = self._stopwatch
            after = DECISIONS if watch.part == DECISIONS else then  # one hook may call another
            watch.turn_to(DECISIONS)
            try:
                return hook(self, *args, **kwargs)
            finally:
                watch.turn_to(after)

        return run

    return wrap


def weight_share(loads: Sequence[UnitLoad], plan: Plan) -> float:
    """Share of dW in the backward FLOPs of a batch under `plan`, in [0, 1].

    Example:
        >>> from lightning_attnbal.core import PassCost, Unit, UnitKind
        >>> cost = PassCost(forward=1.0, own_backward=1.0, pass_backward=1.0, full_backward=2.0)
        >>> loads = [UnitLoad(Unit(n, i, UnitKind.BLOCK, (), (), 0), cost, predecessors=below)
        ...          for i, (n, below) in enumerate([("low", ()), ("high", (0,))])]
        >>> weight_share(loads, Plan({"low": "frozen", "high": "full"}))
        1.0
        >>> round(weight_share(loads, Plan({"low": "full", "high": "full"})), 3)
        0.667
    """
    forward = sum(x.flops.forward for x in loads if plan[x.unit.name] != CACHED)
    backward = plan_cost(loads, plan) - forward - _updates(loads, plan)
    weights = sum(x.flops.weight_grad for x in loads if plan[x.unit.name].is_trained)
    return min(1.0, weights / backward) if backward > 0 else 0.0


def _updates(loads: Sequence[UnitLoad], plan: Plan) -> float:
    return sum(x.flops.optimizer for x in loads if plan[x.unit.name].is_trained)
