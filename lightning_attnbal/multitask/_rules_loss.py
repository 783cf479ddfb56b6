"""Share rules that follow the losses of the run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean

from typing_extensions import override

from lightning_attnbal.core import check_number
from lightning_attnbal.multitask._rules import ShareRule, TaskStatus, filled, normalised

_LEAST = 1e-12  # a loss below it counts as that


@dataclass(frozen=True, slots=True, kw_only=True)
class Uncertainty(ShareRule):
    """Share of task i ∝ w_i / σ_i², the weight that uncertainty weighting gives to its loss.

    Σ_i L_i / (2 σ_i²) + log σ_i is least at σ_i² = L_i, so the share is w_i / L_i, with L_i the
    running loss: L ← memory · L + (1 - memory) · loss per stretch. A task without a loss yet gets
    the mean of the others. Losses are taken to be in (0, inf).

    Args:
        memory: in [0, 1); 0 takes the last stretch alone.

    Raises:
        TypeError: `memory` is not a number.
        ValueError: it is out of range.

    Source: Kendall, Gal and Cipolla, *Multi-task learning using uncertainty to weigh losses for
        scene geometry and semantics*, 2018, eq. (7) and (10). We differ: σ is at its optimum
        instead of being trained, and what it gives is a share of the steps, not a factor.

    Example:
        >>> Uncertainty()([TaskStatus(name="a", num_batches=1, losses=(2.0,)),
        ...                TaskStatus(name="b", num_batches=1, losses=(0.5,))])
        {'a': 0.2, 'b': 0.8}
    """

    memory: float = 0.5

    def __post_init__(self) -> None:
        check_number("memory", self.memory, low=0, high=1, high_open=True)

    @override
    def shares(self, statuses: Sequence[TaskStatus]) -> Mapping[str, float]:
        precisions = [self._precision(status) for status in statuses]
        return normalised(statuses, filled(precisions, fmean))

    def _precision(self, status: TaskStatus) -> float | None:
        running = None
        for loss in status.known:
            running = loss if running is None else self.memory * running + (1 - self.memory) * loss
        return None if running is None else status.weight / max(running, _LEAST)


@dataclass(frozen=True, slots=True, kw_only=True)
class GradNormShares(ShareRule):
    """Share of task i ∝ r_i^alpha: tasks that have learned less than the others get more.

    r_i = (L_i / L_i0) / mean_k (L_k / L_k0) is the relative inverse training rate, L_i the last
    loss and L_i0 the first one; 1 for a task without a loss yet. Losses are taken to be in (0,
    inf).

    Args:
        alpha: in [0, inf); 0 gives equal shares.

    Raises:
        TypeError: `alpha` is not a number.
        ValueError: it is out of range.

    Source: Chen, Badrinarayanan, Lee and Rabinovich, *GradNorm: Gradient normalization for adaptive
        loss balancing in deep multitask networks*, 2018, eq. (1): the target r_i^alpha. We differ:
        it sets shares of the steps, not norms of gradients. Their `alpha` was 0.12 to 1.5.

    Example:
        >>> GradNormShares(alpha=1)([TaskStatus(name="a", num_batches=1, losses=(2.0, 1.8)),
        ...                          TaskStatus(name="b", num_batches=1, losses=(1.0, 0.3))])
        {'a': 0.75, 'b': 0.25}
    """

    alpha: float = 1.5

    def __post_init__(self) -> None:
        check_number("alpha", self.alpha, low=0)

    @override
    def shares(self, statuses: Sequence[TaskStatus]) -> Mapping[str, float]:
        left = [
            max(s.known[-1], _LEAST) / max(s.known[0], _LEAST) if s.known else None
            for s in statuses
        ]
        rates = filled(left, fmean)
        return normalised(statuses, [(rate / max(rates)) ** self.alpha for rate in rates])


@dataclass(frozen=True, slots=True, kw_only=True)
class BanditShares(ShareRule):
    """Share of task i ∝ max(0, X_i + B · sqrt(c · ln(1 + n) / N_i)): what paid, or may pay.

    A fall of the loss from one known stretch to the next, a stretches ago, paid r = w_i · (L_before
    - L_after) / (cost_per_batch_i · batches of task i per stretch);

        X_i = Σ γ^a · r / N_i,   N_i = Σ γ^a,   n = Σ_i N_i,   B² = mean of X_i².

    A task with no fall yet counts as the best of the others.

    Args:
        c: how much uncertainty counts, in [0, inf).
        discount: γ per stretch, in (0, 1].

    Raises:
        TypeError: a setting is not a number.
        ValueError: a setting is out of range.

    Source: Auer, Cesa-Bianchi and Fischer, *Finite-time analysis of the multiarmed bandit problem*,
        2002 (UCB1); Garivier and Moulines, *On upper-confidence bound policies for switching bandit
        problems*, 2011 (the discount). We differ: the upper bounds set shares, as a stretch has
        many batches, and do not pick one task; B is measured.

    Example:
        >>> falling = TaskStatus(name="a", num_batches=1, losses=(2.0, 1.25), batches=2)
        >>> still = TaskStatus(name="b", num_batches=1, losses=(1.0, 0.75), batches=2)
        >>> BanditShares(c=0)([falling, still])
        {'a': 0.75, 'b': 0.25}
    """

    c: float = 0.5
    discount: float = 0.8

    def __post_init__(self) -> None:
        check_number("c", self.c, low=0)
        check_number("discount", self.discount, low=0, high=1, low_open=True)

    @override
    def shares(self, statuses: Sequence[TaskStatus]) -> Mapping[str, float]:
        paid = [self._paid(status) for status in statuses]
        known = [reward for reward in paid if reward is not None]
        plays = sum(num for _, num in known)
        scale = math.sqrt(fmean(mean**2 for mean, _ in known)) if known else 0.0
        upper = [
            None
            if reward is None
            else max(0.0, reward[0] + scale * math.sqrt(self.c * math.log1p(plays) / reward[1]))
            for reward in paid
        ]
        return normalised(statuses, filled(upper, max))

    def _paid(self, status: TaskStatus) -> tuple[float, float] | None:
        """X_i and N_i, None if the loss is known in fewer than two stretches."""
        at = [(j, loss) for j, loss in enumerate(status.losses) if math.isfinite(loss)]
        if len(at) < 2:
            return None
        cost = status.cost_per_batch * max(1.0, status.batches / len(at))
        plays, total = 0.0, 0.0
        for (_, before), (j, after) in pairwise(at):
            weight = self.discount ** (len(status.losses) - 1 - j)
            plays += weight
            total += weight * status.weight * (before - after) / cost
        return total / plays, plays
