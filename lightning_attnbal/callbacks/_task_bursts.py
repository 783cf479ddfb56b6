"""When what tasks do for each other is measured."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch.optim import Optimizer

from lightning_attnbal.multitask import AffinityMeter

BURST = 2  # sampled steps per task in a row
_BURSTS = 4  # per epoch, at first
_ENOUGH = 16  # estimates of what a task does for itself, mean over the tasks, after which
_RARELY = 16  # one step in so many is sampled


@dataclass(kw_only=True)
class Bursts:
    """Has the meter look at bursts of steps: each task's direction meets each task's next gradient.

    Args:
        meter: looks at a step.
        is_on: whether the last step was in a burst.
    """

    meter: AffinityMeter
    is_on: bool = False

    def is_due(self, step: int, shares: Mapping[str, float], epoch_steps: int | None) -> bool:
        """Whether this step is in a burst: half of the steps at most, few once enough is known."""
        length = _length(shares)
        every = 50 * len(shares) if epoch_steps is None else epoch_steps
        is_known = self.meter.mean_seen >= _ENOUGH
        period = _RARELY * length if is_known else max(2 * length, every // _BURSTS)
        return step % period < length

    def before_step(self, task: str, optimizers: Sequence[Optimizer], *, is_due: bool) -> None:
        """Call right before an optimizer step of `task`, gradients there."""
        was_on, self.is_on = self.is_on, is_due
        if is_due != was_on:
            self.meter.begin()  # a burst begins, or is over: directions grow old
        if is_due:
            self.meter.see(task, optimizers)


def _length(shares: Mapping[str, float]) -> int:
    """Steps in which the rarest task comes by twice, up to three times as many as tasks ask."""
    least = BURST * len(shares)
    rarest = min(share for share in shares.values() if share > 0)
    return max(least, min(3 * least, math.ceil(BURST / max(rarest, 1e-3))))
