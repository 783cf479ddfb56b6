"""The learned alternative: depths are arms, rewarded by what the loss fell per unit of cost."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from lightning_attnbal.allocate._allocator import Allocator, Choice
from lightning_attnbal.allocate._baselines import spaced
from lightning_attnbal.allocate._candidate import Candidate, plans_worth_having
from lightning_attnbal.allocate._levels import Levels, trained_units
from lightning_attnbal.allocate._limits import Limits
from lightning_attnbal.allocate._progress import Progress
from lightning_attnbal.core import (
    Plan,
    Problem,
    check_integer,
    check_number,
)

Array = NDArray[np.float64]

_FIRST_TRIES = 0.25  # of the run's steps, at most, for trying every arm once
_STEPS = 100  # of a stretch, where neither the data nor the run has a known length
_SLOWDOWNS = np.linspace(0.0, 0.5, 26)  # κ per stretch that are tried


@dataclass(frozen=True, slots=True)
class _Arm:
    """A depth, at its most valuable plan."""

    depth: int
    levels: Levels
    steps: float
    cost: float  # per step, its one-off cost spread over the steps
    reach: float  # share of what remains that it can use, in (0, 1]


@dataclass(frozen=True, slots=True)
class _Rewards:
    """What the run so far paid: one entry per arm that took part in a fall of the loss."""

    arm: NDArray[np.intp]
    plays: Array  # discounted
    reward: Array
    age: Array  # in stretches

    def sums(self, weights: Array, num_arms: int) -> Array:
        """Σ per arm."""
        return np.bincount(self.arm, weights, num_arms).astype(np.float64)

    def means(self, num_arms: int) -> Array:
        """X_a, under the slow-down that goes best with the rewards."""
        fits = []
        for slowdown in _SLOWDOWNS:
            then = np.exp(slowdown * self.age)
            top = self.sums(self.plays * then * self.reward, num_arms)
            now = top / np.maximum(self.sums(self.plays * then**2, num_arms), 1e-300)
            misfit = float((self.plays * (self.reward - now[self.arm] * then) ** 2).sum())
            fits.append((misfit, now))
        best: Array = min(fits, key=lambda fit: fit[0])[1]
        return best


@dataclass(frozen=True, slots=True, kw_only=True)
class BanditAllocator(Allocator):
    """Learns from the run which depth lowers the loss most per unit of cost; no forecast.

    Arms are the depths of the exact frontier, each at its most valuable plan, and full training; of
    more than `most_arms` depths, that many evenly spaced ones. An arm is played for a stretch of
    steps, a share `stretch` of an epoch, or fewer where trying all arms once would take more than a
    quarter of the run. Then

        a* = argmax_a share_a · (X_a + 2 · B · sqrt(exploration · ln(1 + n) / N_a)),
        X, κ = argmin Σ_j Σ_a γ^age_j · w_ja · (r_j - X_a · exp(κ · age_j))²,
        N_a = Σ_j γ^age_j · w_ja,   n = Σ_a N_a,   B² = Σ_a N_a · X_a² / n,

    with r_j = (L_j-1 - L_j) / (cost between their middles) the fall of the mean training loss from
    one segment of the run to the next, w_ja the steps of it that arm a took, age_j the steps since
    (both in stretches), and share_a in (0, 1] the part of the budget left that the arm can use
    before the user's own end of the run. κ in [0, 0.5] is by how much learning slows down per
    stretch, whatever trains: without it the arm tried first, when the loss falls by itself, wins.
    An arm never played goes first, in an order that `seed` draws. A step's cost holds its part of
    the one-off cost of filling the arm's cache. Units that were never trained are not frozen.

    Args:
        exploration: ξ, in [0, inf); 0 plays what did best. Set on made-up curves, as is
            `discount`: the theory's 1/2 and above would spend most of a short run on looking.
        discount: γ per stretch, in (0, 1]: what an arm paid long ago says little about now.
        stretch: share of an epoch, in (0, inf).
        most_arms: in [1, inf).
        seed: draws the order of first tries, in [0, inf).
        resolution: cells of cost on the frontier, in [1, inf).

    Raises:
        TypeError: a setting is not a number.
        ValueError: a setting is out of range.

    Source:
        Auer, Cesa-Bianchi and Fischer, *Finite-time analysis of the multiarmed bandit problem*,
        2002 (UCB1); Garivier and Moulines, *On upper-confidence bound policies for switching bandit
        problems*, 2011 (its discounted form). We differ: B is measured, not known; ln(1 + n) so
        that less than one play has a logarithm; plays count by their steps; κ; share_a.

    Example:
        >>> from lightning_attnbal.allocate import Segment
        >>> from lightning_attnbal.core import FROZEN, FULL, Menu, Option
        >>> menu = (Option(level=FROZEN, cost=1, cost_above=1),
        ...         Option(level=FULL, cost=2, cost_above=1, value=3))
        >>> problem = Problem((Menu("low", menu), Menu("high", menu)))
        >>> run = Progress(segments=tuple(
        ...     Segment(trained=trained, steps=10, loss=loss)
        ...     for trained, loss in ((("low", "high"), 2.0), (("low", "high"), 1.9),
        ...                           (("high",), 1.5), (("high",), 1.1))))
        >>> allocate = BanditAllocator()
        >>> plan = allocate(problem, Limits(remaining=600, epoch_steps=100), progress=run)
        >>> print(plan, plan.num_steps, "|", plan.method)
        frozen: low · full: high 10 | bandit: 0.0122 per cost (bonus 0.0031) in 1.5 plays; ...
    """

    exploration: float = 0.03
    discount: float = 0.97
    stretch: float = 0.1
    most_arms: int = 6
    seed: int = 0
    resolution: int = 1000

    def __post_init__(self) -> None:
        check_number("exploration", self.exploration, low=0)
        check_number("discount", self.discount, low=0, high=1, low_open=True)
        check_number("stretch", self.stretch, low=0, low_open=True)
        check_integer("most_arms", self.most_arms, low=1)
        check_integer("seed", self.seed, low=0)
        check_integer("resolution", self.resolution, low=1)

    @override
    def allocate(
        self, problem: Problem, limits: Limits, current: Plan | None, progress: Progress
    ) -> Choice:
        arms = self._arms(problem, limits, progress)
        steps = self._stretch(arms, limits, progress)
        rewards = self._rewards(problem, arms, progress, steps)
        plays = rewards.sums(rewards.plays, len(arms))
        new = [arm for arm, count in zip(arms, plays, strict=True) if not count]
        if new:
            order = np.random.default_rng(self.seed).permutation(len(problem.menus))
            arm = min(new, key=lambda arm: int(order[arm.depth]))
            words = f"first try of this depth, {len(new) - 1} more to try"
        else:
            arm, words = self._best(arms, plays, rewards.means(len(arms)), limits)
        return Choice(levels=arm.levels, method=f"bandit: {words}", num_steps=steps)

    def _arms(self, problem: Problem, limits: Limits, progress: Progress) -> list[_Arm]:
        """Shallowest first; what remains buys a step of each.

        Raises:
            InfeasibleBudgetError: what remains buys no step of any.
        """
        plans = plans_worth_having(problem, limits, self.resolution)
        by_depth = {_depth(levels): levels for levels in plans}
        found = [_arm(problem, levels, limits) for levels in by_depth.values()]
        arms = [arm for arm in found if arm.steps >= 1]
        if not arms:
            raise limits.infeasible(min(arm.cost for arm in found))
        fresh = progress.must_train(problem)
        learning = [arm for arm in arms if fresh <= trained_units(problem, arm.levels)]
        ordered = sorted(learning or arms, key=lambda arm: -arm.depth)
        kept = spaced(list(range(len(ordered))), min(self.most_arms, len(ordered)))
        return [ordered[i] for i in kept]

    def _stretch(self, arms: Sequence[_Arm], limits: Limits, progress: Progress) -> int:
        """Steps for which an arm is played."""
        total = progress.steps + min(arm.steps for arm in arms)
        most = _FIRST_TRIES * total / len(arms)
        if limits.epoch_steps is not None:
            most = min(most, self.stretch * limits.epoch_steps)
        return max(1, math.floor(most)) if math.isfinite(most) else _STEPS

    def _rewards(
        self, problem: Problem, arms: Sequence[_Arm], progress: Progress, stretch: int
    ) -> _Rewards:
        """Falls of the loss, latest first, each divided among the arms of its two segments."""
        places = {arm.depth: i for i, arm in enumerate(arms)}
        index = {menu.unit: k for k, menu in enumerate(problem.menus)}
        known = [s for s in progress.segments if math.isfinite(s.loss)]
        lowest = [min((index.get(name, -1) for name in s.trained), default=-1) for s in known]
        found: list[tuple[int, float, float, float]] = []
        age = 0.0
        for j in range(len(known) - 1, 0, -1):
            halves = [(places.get(lowest[i]), known[i].steps / 2) for i in (j - 1, j)]
            played = [(arm, steps) for arm, steps in halves if arm is not None]
            cost = sum(arms[arm].cost * steps for arm, steps in played)
            if len(played) == 2 and cost > 0:
                reward = (known[j - 1].loss - known[j].loss) / cost
                weight = self.discount**age / stretch
                found += [(arm, weight * steps, reward, age) for arm, steps in played]
            age += known[j].steps / stretch
        columns = np.array(found, dtype=np.float64).reshape(-1, 4).T
        return _Rewards(columns[0].astype(np.intp), *columns[1:])

    def _best(
        self, arms: Sequence[_Arm], plays: Array, means: Array, limits: Limits
    ) -> tuple[_Arm, str]:
        """The arm with the highest bound, and why."""
        size = math.sqrt(float(plays @ means**2 / plays.sum()))
        bonus = 2 * size * np.sqrt(self.exploration * math.log1p(plays.sum()) / plays)
        reach = np.array([arm.reach for arm in arms])
        best = int(np.argmax(reach * (means + bonus)))

        def figures(k: int) -> str:
            scaled = limits.cost_scale * np.array([means[k], bonus[k]])
            return f"{scaled[0]:.3g} per {limits.cost_unit} (bonus {scaled[1]:.3g})"

        deepest = len(arms) - 1
        words = f"{figures(best)} in {plays[best]:.2g} plays"
        return arms[best], words if best == deepest else f"{words}; deepest {figures(deepest)}"


def _arm(problem: Problem, levels: Levels, limits: Limits) -> _Arm:
    candidate = Candidate.of(problem, levels, limits)
    steps = limits.steps(candidate.cost, candidate.once)
    if math.isinf(steps):
        return _Arm(_depth(levels), candidate.levels, steps, candidate.cost, 1.0)
    total = limits.total(steps, candidate.cost, candidate.once)
    cost = total / steps if steps else candidate.cost
    reach = min(1.0, total / limits.remaining) if limits.remaining else 1.0
    return _Arm(_depth(levels), candidate.levels, steps, cost, reach)


def _depth(levels: Levels) -> int:
    """The lowest trained unit."""
    return next(k for k, level in enumerate(levels) if level.is_trained)
