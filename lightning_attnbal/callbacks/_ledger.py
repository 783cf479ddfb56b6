"""What the run was allowed, what it has spent, and what that leaves. Numbers only."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from typing import Any

from lightning_attnbal.core import Budget, Dimension, Quantity


@dataclass(kw_only=True)
class Ledger:
    """The account of one run.

    FLOPs are charged per batch at the cost of the plan and the batch's own shape; seconds are the
    wall clock of the whole fit, validation and data loading included.

    Args:
        budget: the allowance.
        full_batches: batches of the user's own run with nothing balanced, None if it has no end.
        flops: FLOPs spent.
        full_flops: FLOPs the same batches would have cost with everything trained.
        seconds: wall-clock seconds spent.
        batches: batches seen.
        reserve: what the end of the run needs beside training (a last validation, in seconds).
        full_seconds_per_batch: predicted seconds of a batch with everything trained, NaN if
            unknown.
        last_batch: batches after which the run is to end with budget left, None if it is not.

    Example:
        >>> ledger = Ledger(budget=Budget.parse("50%"), full_batches=10)
        >>> ledger.charge(flops=2e9, full_flops=4e9)
        >>> print(ledger.reference, "|", ledger.limit, "|", ledger.spent)
        40 GFLOP | 20 GFLOP | 2 GFLOP
        >>> ledger.progress(cost_per_batch=2e9), ledger.can_afford(18e9), ledger.can_afford(19e9)
        (0.1, True, False)
    """

    budget: Budget
    full_batches: int | None
    flops: float = 0.0
    full_flops: float = 0.0
    seconds: float = 0.0
    batches: int = 0
    reserve: float = 0.0
    full_seconds_per_batch: float = math.nan
    last_batch: int | None = None

    @property
    def is_unrestricted(self) -> bool:
        """Whether the budget is the whole of the user's own run: then that run's end is the end."""
        whole = self.budget.is_fraction and self.budget.limit.amount == 1.0
        return whole and self.budget.memory is None

    @property
    def user_batches_left(self) -> int | None:
        """Batches until the user's own limits end the run, None if they never do."""
        return None if self.full_batches is None else max(0, self.full_batches - self.batches)

    @property
    def remaining_batches(self) -> int | None:
        """Batches until those limits or the last plan end the run, None if neither does."""
        left = self.user_batches_left
        if self.last_batch is None:
            return left
        last = max(0, self.last_batch - self.batches)
        return last if left is None else min(left, last)

    @property
    def reference(self) -> Quantity | None:
        """Cost of the user's run with nothing balanced, in the budget's dimension.

        The mean over the batches seen so far times their number in the full run, so it settles
        within the first epoch when batches differ in shape. None before anything was measured, or
        if the run has no end of its own.
        """
        if self.full_batches is None:
            return None
        if self.budget.dimension is Dimension.SECOND:
            total = self.full_seconds_per_batch * self.full_batches
            return None if math.isnan(total) else Quantity(total, Dimension.SECOND)
        if not self.batches:
            return None
        return Quantity(self.full_flops / self.batches * self.full_batches, Dimension.FLOP)

    @property
    def limit(self) -> Quantity | None:
        """The budget in FLOPs or seconds; None while a share has nothing to be a share of."""
        if not self.budget.is_fraction:
            return self.budget.limit
        reference = self.reference
        return None if reference is None else self.budget.resolve(reference)

    @property
    def spent(self) -> Quantity:
        """What was spent, in the budget's dimension."""
        is_time = self.budget.dimension is Dimension.SECOND
        return Quantity(self.seconds if is_time else self.flops, self.budget.dimension)

    @property
    def remaining(self) -> float:
        """What is left for training, in [0, inf)."""
        return max(0.0, self._usable - self.spent.amount)

    @property
    def _usable(self) -> float:
        """The limit less the reserve; inf while there is none."""
        limit = self.limit
        return math.inf if limit is None else limit.amount - self.reserve

    def charge(self, *, flops: float, full_flops: float) -> None:
        """Book one batch: what it cost, and what it would have cost with everything trained."""
        self.flops += flops
        self.full_flops += full_flops
        self.batches += 1

    def can_afford(self, cost: float) -> bool:
        """Whether `cost` more stays within the limit (up to float rounding)."""
        if self.is_unrestricted:
            return True
        return cost <= self.remaining + 1e-9 * self.spent.amount

    def expected_total(self, cost_per_batch: float) -> float:
        """What will have been spent at the end if each batch from now on costs `cost_per_batch`."""
        if self.remaining_batches is None:
            return self._usable
        return min(self._usable, self.spent.amount + self.remaining_batches * cost_per_batch)

    def progress(self, cost_per_batch: float) -> float:
        """Share of the run that is over, in [0, 1]; 1 exactly when the budget ends.

        Spent over what will have been spent at the end: the limit, or less when the user's own
        `max_epochs` or `max_steps` ends the run before that.
        """
        if self.is_unrestricted:
            return 0.0 if not self.full_batches else min(1.0, self.batches / self.full_batches)
        total = self.expected_total(cost_per_batch)
        if not math.isfinite(total) or total <= 0:
            return 0.0
        return min(1.0, self.spent.amount / total)

    def seconds_left(self, cost_per_batch: float) -> float:
        """Expected seconds until the run ends, from the pace so far; NaN before there is one."""
        done = self.progress(cost_per_batch)
        return self.seconds * (1 - done) / done if done > 0 else math.nan

    def state_dict(self) -> dict[str, Any]:
        """Plain data for a checkpoint."""
        return {k: v for k, v in asdict(self).items() if k not in {"budget", "full_batches"}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave; budget and length of the run are the new run's."""
        for field in fields(self):
            if field.name in state:
                setattr(self, field.name, state[field.name])
