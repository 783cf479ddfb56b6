"""From a run to the allocator's question and back."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from lightning_attnbal.allocate import Limits
from lightning_attnbal.callbacks._ledger import Ledger
from lightning_attnbal.core import Dimension, Plan

if TYPE_CHECKING:
    from lightning_attnbal.callbacks._run import Run

_ANYTHING = 1e300  # FLOPs
_ROUNDING = 1e-9  # an n-th of n steps is a step


def limits_of(run: Run, ledger: Ledger | None = None) -> Limits:
    """What is left for the rest of the run, by its own ledger or another."""
    ledger = ledger or run.ledger
    left, memory = ledger.user_batches_left, ledger.budget.memory
    is_flop = run.dimension is Dimension.FLOP
    return Limits(
        remaining=ledger.remaining,
        max_steps=None if left is None else max(1, math.ceil(left / run.batches_per_step)),
        epoch_steps=run.steps_per_epoch,
        memory=None if memory is None else memory.amount,
        cost_unit="GFLOP" if is_flop else "s",
        cost_scale=1e9 if is_flop else 1.0,
    )


def solve(run: Run, ledger: Ledger | None = None) -> Plan:
    """The allocator's plan for the rest of the run.

    Raises:
        InfeasibleBudgetError: what is left buys not one step.
    """
    problem = run.session.problem(run.dimension, run.batches_per_step)
    progress = run.losses.progress(run.session.fresh)
    return run.allocator(problem, limits_of(run, ledger), run.session.plan, progress)


def with_rate(run: Run, plan: Plan) -> Plan:
    """The plan with its factor of the learning rate."""
    if run.rate_rule is None:
        return plan
    units = [unit for unit in run.session.units if run.session.trainable[unit.name]]
    return replace(plan, lr_factor=run.rate_rule(plan, units))


def check_feasible(run: Run) -> None:
    """Raise before the first weight moves if nothing fits the budget or the memory.

    Raises:
        InfeasibleBudgetError: the budget is below the step that trains everything, by which costs
            are measured; or no plan fits.
    """
    ledger, memory = run.ledger, run.ledger.budget.memory
    if run.dimension is Dimension.FLOP and not ledger.is_unrestricted:
        _check_first_step(run)
    if run.replay is not None:
        problem = run.session.problem(Dimension.FLOP, run.batches_per_step)
        run.replay.check(problem, None if memory is None else memory.amount)
    elif run.dimension is Dimension.FLOP and not ledger.is_unrestricted:
        solve(run, _after_a_batch(run))
    elif memory is not None:  # what steps take is not known yet
        limits = Limits(remaining=_ANYTHING, memory=memory.amount)
        run.allocator(run.session.problem(Dimension.FLOP, run.batches_per_step), limits)


def _check_first_step(run: Run) -> None:
    limits = limits_of(run, _after_a_batch(run))
    first = run.session.full_flops * run.batches_per_step
    if first > limits.remaining * (1 + _ROUNDING):
        raise limits.infeasible(first, "one step that trains everything, to measure costs by")


def _after_a_batch(run: Run) -> Ledger:
    """The account as if a batch had been for free: what a share of the full run is, is known."""
    ledger = replace(run.ledger)
    ledger.charge(flops=0.0, full_flops=run.session.full_flops)
    return ledger
