"""Plans with their one-off costs, and how to spend what all steps at one of them leave over."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from lightning_attnbal.allocate._frontier import frontier
from lightning_attnbal.allocate._levels import Levels, full_levels
from lightning_attnbal.allocate._limits import Limits
from lightning_attnbal.core import CACHED, FROZEN, Plan, Problem

_LEAST_SAVING = 0.02
_HOPE = 1.3  # times the steps that the budget is forecast to pay for


@dataclass(frozen=True, slots=True)
class Candidate:
    """A plan on the way to a choice.

    Args:
        levels: one per unit.
        cost: per step.
        once: one-off, for filling its cache.
        value: contribution per step.
        saving: per step, against the same plan with its cached units frozen.
    """

    levels: Levels
    cost: float
    once: float
    value: float
    saving: float = 0.0

    def trains_like(self, other: Candidate) -> bool:
        """Whether both train the same units at the same levels."""
        pairs = zip(self.levels, other.levels, strict=True)
        return all(a == b or {a, b} == {CACHED, FROZEN} for a, b in pairs)

    @classmethod
    def of(cls, problem: Problem, levels: Levels, limits: Limits) -> Candidate:
        """The plan, with cached units frozen where caching would not pay in the steps left.

        Where the budget ends the run it has to fail to pay in 1.3 times the steps, too: what a step
        costs is an estimate, and a cache that was not begun early is missing in the next pass.
        """
        cost, value, _ = problem.evaluate(levels)
        once = problem.one_off(levels)
        thawed = tuple(FROZEN if level == CACHED else level for level in levels)
        if thawed == levels or not problem.offers(thawed):
            return cls(levels, cost, once, value)
        dearer, worth, _ = problem.evaluate(thawed)
        steps = min(_HOPE * limits.steps(cost, once), limits.max_steps or math.inf)
        if math.isfinite(steps) and worth >= value and dearer >= cost:
            saved = limits.total(steps, dearer) - limits.total(steps, cost, once)
            if saved < _LEAST_SAVING * limits.total(steps, dearer):
                return cls(thawed, dearer, 0.0, worth)
        return cls(levels, cost, once, value, max(0.0, dearer - cost))


def spend_the_rest(
    candidates: Sequence[Candidate], chosen: Candidate, limits: Limits
) -> tuple[Candidate, int | None]:
    """What goes first, and for how many steps (None: all), so that no budget is left over.

    Between neighbours on the frontier with costs c < c', n steps at c' and S - n at c just use up
    what remains: n = unspent / (c' - c), rounded down, c' with what filling its cache costs in n
    steps. The dearer ones come first, while the learning rate is high, unless they train what the
    other plan has cached and what is left does not pay for filling that again: then they come last.
    """
    if limits.max_steps is None:
        return chosen, None
    first, num_steps, at = chosen, None, chosen
    for dearer in sorted(candidates, key=lambda c: c.cost):
        if dearer.cost <= at.cost:
            continue
        unspent = limits.remaining - limits.total(limits.max_steps, at.cost, at.once)
        behind = _affordable(unspent, at, dearer, limits)
        ahead = _affordable(unspent - _refill(at, dearer, limits), at, dearer, limits)
        if behind >= limits.max_steps:
            ahead = limits.max_steps  # to the end: there is no going back to what was cached
        if ahead <= 0:
            if first is chosen and behind > 0:
                num_steps = limits.max_steps - behind
            break
        first, num_steps, at = dearer, min(ahead, limits.max_steps), dearer
    return first, num_steps


def _affordable(unspent: float, at: Candidate, dearer: Candidate, limits: Limits) -> int:
    """For how many steps `unspent` pays the difference between two plans."""
    epoch = limits.epoch_steps or 1
    steps = unspent / (dearer.cost - at.cost + dearer.once / epoch)
    if dearer.once and steps > epoch:
        steps = (unspent - dearer.once) / (dearer.cost - at.cost)
    return math.floor(steps)


def _refill(at: Candidate, dearer: Candidate, limits: Limits) -> float:
    """What filling the cache of a plan costs, again, after another has trained what is in it."""
    pairs = zip(at.levels, dearer.levels, strict=True)
    if not any(level == CACHED and other.is_trained for level, other in pairs):
        return 0.0
    return max(0.0, at.saving * (limits.epoch_steps or 1) - at.once)


def plans_worth_having(problem: Problem, limits: Limits, resolution: int) -> list[Levels]:
    """The frontier, cheapest first, and full training at the end unless memory forbids it."""
    points = frontier(problem, memory=limits.memory, resolution=resolution)
    full = full_levels(problem)
    plans = [point.levels[0] for point in points if point.levels[0] != full]
    fits = limits.memory is None or problem.evaluate(full)[2] <= limits.memory
    return [*plans, full] if fits else plans


def still_possible(problem: Problem, limits: Limits, current: Plan | None) -> Levels | None:
    """The current levels if menus, memory and budget still allow them."""
    if current is None or list(current) != [menu.unit for menu in problem.menus]:
        return None
    levels = tuple(current.values())
    if not problem.offers(levels) or problem.why_invalid(levels) is not None:
        return None
    cost, _, memory = problem.evaluate(levels)
    cost += problem.one_off(levels) / (limits.epoch_steps or 1)
    fits = cost <= limits.remaining and (limits.memory is None or memory <= limits.memory)
    return levels if fits else None
