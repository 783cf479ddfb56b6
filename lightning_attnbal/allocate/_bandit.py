"""The learned alternative: depths are arms, rewarded by what the loss fell per unit of cost."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from typing_extensions import override

from lightning_attnbal.allocate._allocator import Allocator, Choice
from lightning_attnbal.allocate._baselines import spaced
from lightning_attnbal.allocate._candidate import Candidate
from lightning_attnbal.allocate._frontier import frontier
from lightning_attnbal.allocate._levels import Levels, train_only, trainable
from lightning_attnbal.allocate._limits import Limits
from lightning_attnbal.allocate._progress import Progress
from lightning_attnbal.core import (
    InfeasibleBudgetError,
    Plan,
    Problem,
    check_integer,
    check_number,
)

_FIRST_TRIES = 0.25  # of the run's steps, at most, for trying every arm once
_STEPS = 100  # of a stretch, where neither the data nor the run has a known length


@dataclass(frozen=True, slots=True)
class _Arm:
    """A depth, at its most valuable plan."""

    depth: int
    levels: Levels
    steps: float
    cost: float  # per step, its one-off cost spread over the steps
    reach: float  # share of what remains that it can use, in (0, 1]


@dataclass(slots=True)
class _Tally:
    """Discounted plays of an arm and the rewards they brought."""

    plays: float = 0.0
    reward: float = 0.0
    square: float = 0.0

    def add(self, weight: float, reward: float) -> None:
        self.plays += weight
        self.reward += weight * reward
        self.square += weight * reward**2


@dataclass(frozen=True, slots=True, kw_only=True)
class BanditAllocator(Allocator):
    """Learns from the run which depth lowers the loss most per unit of cost; no forecast.

    Arms are the depths of the exact frontier, each at its most valuable plan, and full training; of
    more than `most_arms` depths, that many evenly spaced ones. An arm is played for a stretch of
    steps, a share `stretch` of an epoch, or fewer where trying all arms once would take more than a
    quarter of the run. Then

        a* = argmax_a share_a · (X_a + 2 · B · sqrt(exploration · ln(1 + n) / N_a)),
        N_a = Σ_j γ^age_j · w_ja,   n = Σ_a N_a,   X_a = Σ_j γ^age_j · w_ja · r_j / N_a,

    with r_j = (L_j-1 - L_j) / (cost between their middles) the fall of the mean training loss from
    one segment of the run to the next, w_ja the steps of it that arm a took and age_j the steps
    since, both in stretches, B the discounted root mean square of all r_j, and share_a in (0, 1]
    the part of the budget left that the arm can use before the user's own end of the run. An arm
    never played goes first, in an order that `seed` draws. A step's cost holds its part of the
    one-off cost of filling the arm's cache. Units that were never trained are not frozen.

    Args:
        exploration: ξ, in [0, inf); 0 plays what did best. Set by hand, as is `discount`: the
            theory's 1/2 and above is for rewards of any size up to B.
        discount: γ per stretch, in (0, 1]: learning slows down, so old rewards flatter.
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
        that less than one play has a logarithm; plays count by their steps; share_a.

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
        >>> allocate = BanditAllocator(exploration=0.1)
        >>> plan = allocate(problem, Limits(remaining=600, epoch_steps=100), progress=run)
        >>> print(plan, plan.num_steps, "|", plan.method)
        frozen: low · full: high 10 | bandit: 0.0123 per cost (bonus 0.00601) in 1.4 plays; ...
    """

    exploration: float = 0.1
    discount: float = 0.9
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
        tallies = self._tallies(problem, arms, progress, steps)
        new = [arm for arm in arms if not tallies[arm.depth].plays]
        if new:
            order = np.random.default_rng(self.seed).permutation(len(problem.menus))
            arm = min(new, key=lambda arm: int(order[arm.depth]))
            words = f"first try of this depth, {len(new) - 1} more to try"
        else:
            arm, words = self._best(arms, tallies, limits)
        return Choice(levels=arm.levels, method=f"bandit: {words}", num_steps=steps)

    def _arms(self, problem: Problem, limits: Limits, progress: Progress) -> list[_Arm]:
        """Shallowest first; what remains buys a step of each.

        Raises:
            InfeasibleBudgetError: what remains buys no step of any.
        """
        points = frontier(problem, memory=limits.memory, resolution=self.resolution)
        by_depth = {_depth(point.levels[0]): point.levels[0] for point in points}
        full = train_only(problem, trainable(problem))
        if limits.memory is None or problem.evaluate(full)[2] <= limits.memory:
            by_depth[_depth(full)] = full
        found = [_arm(problem, levels, limits) for levels in by_depth.values()]
        arms = [arm for arm in found if arm.steps >= 1]
        if not arms:
            cheapest = min(arm.cost for arm in found)
            raise InfeasibleBudgetError(limits.remaining, cheapest, limits.cost_unit)
        able = {problem.menus[k].unit for k in trainable(problem)}
        fresh = able & progress.fresh
        learning = [arm for arm in arms if fresh <= _trained(problem, arm.levels)]
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

    def _tallies(
        self, problem: Problem, arms: Sequence[_Arm], progress: Progress, stretch: int
    ) -> dict[int, _Tally]:
        """By depth, what the run so far says."""
        tallies = {arm.depth: _Tally() for arm in arms}
        costs = {arm.depth: arm.cost for arm in arms}
        index = {menu.unit: k for k, menu in enumerate(problem.menus)}
        known = [s for s in progress.segments if math.isfinite(s.loss)]
        depths = [min((index.get(name, -1) for name in s.trained), default=-1) for s in known]
        age = 0.0
        for j in range(len(known) - 1, 0, -1):
            halves = [(depths[i], known[i].steps / 2) for i in (j - 1, j)]
            if all(depth in tallies for depth, _ in halves):
                cost = sum(costs[depth] * steps for depth, steps in halves)
                reward = (known[j - 1].loss - known[j].loss) / cost if cost > 0 else 0.0
                for depth, steps in halves:
                    weight = self.discount ** (age / stretch) * steps / stretch
                    tallies[depth].add(weight, reward)
            age += known[j].steps
        return tallies

    def _best(
        self, arms: Sequence[_Arm], tallies: dict[int, _Tally], limits: Limits
    ) -> tuple[_Arm, str]:
        """The arm with the highest bound, and why."""
        plays = sum(tally.plays for tally in tallies.values())
        size = math.sqrt(sum(tally.square for tally in tallies.values()) / plays)
        wide = 2 * size * math.sqrt(self.exploration * math.log1p(plays))
        bounds = {}
        for arm in arms:
            tally = tallies[arm.depth]
            mean, bonus = tally.reward / tally.plays, wide / math.sqrt(tally.plays)
            bounds[arm] = (arm.reach * (mean + bonus), mean, bonus)
        best = max(arms, key=lambda arm: bounds[arm][0])
        _, mean, bonus = bounds[best]
        scale, unit = limits.cost_scale, limits.cost_unit
        figures = f"{mean * scale:.3g} per {unit} (bonus {bonus * scale:.3g})"
        words = f"{figures} in {tallies[best.depth].plays:.2g} plays"
        _, mean, bonus = bounds[arms[-1]]
        beside = f"; deepest {mean * scale:.3g} (bonus {bonus * scale:.3g})"
        return best, words if best is arms[-1] else words + beside


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


def _trained(problem: Problem, levels: Levels) -> set[str]:
    pairs = zip(problem.menus, levels, strict=True)
    return {menu.unit for menu, level in pairs if level.is_trained}
