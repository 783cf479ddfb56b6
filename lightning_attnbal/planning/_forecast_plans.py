"""What each of several budgets would buy, before any training."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from lightning_attnbal.allocate import ForecastAllocator
from lightning_attnbal.apply import CacheSettings, PlanApplier
from lightning_attnbal.core import (
    DETACHED,
    LOCAL,
    Budget,
    Dimension,
    Level,
    Quantity,
    Unit,
    UnitKind,
    UnitLoad,
    check_integer,
)
from lightning_attnbal.measure import LoadReport, UnitSpec, fresh_units, profile
from lightning_attnbal.planning._case import Case
from lightning_attnbal.planning._contributions import (
    Forward,
    contributions,
    halves,
    trainable_units,
)
from lightning_attnbal.planning._report import PlanReport

_BUDGETS = ("10%", "25%", "50%", "100%")


def forecast_plans(
    model: nn.Module,
    batch: Any,
    *,
    steps_per_epoch: int,
    epochs: int,
    budgets: Sequence[str | float | Quantity | Budget] = (),
    memory: str | Quantity | None = None,
    second_batch: Any = None,
    units: UnitSpec = None,
    forward: Forward | None = None,
    optimizer: Optimizer | None = None,
    levels: Sequence[str | Level] = ("cached", "frozen", "full"),
    cache: CacheSettings | None = None,
    pretrained: bool | None = None,
    allocator: ForecastAllocator | None = None,
) -> PlanReport:
    """For each budget the exact frontier of plans and where the run is forecast to end on each.

    Costs are counted on `batch`. Contributions are those of `probe_contributions` on two batches;
    where a forward pass gives no loss every unit counts the same, and the report says so. Steps are
    those that what is left after calibration buys, the filling of a cache included. Nothing is
    trained; the model, gradients and random state are afterwards as before.

    A forecast before a run is a prior: it knows what depths and numbers of steps did elsewhere and
    nothing of these data. Its error is a standard deviation over learning curves. Seconds are what
    units take by themselves on this machine, without data loading and validation.

    Args:
        model: the model, as it would be when training begins.
        batch: a sample batch of the usual size, in the form of `profile`.
        steps_per_epoch: optimizer steps per epoch of the full run, one batch each, in [1, inf).
        epochs: passes over the data of the full run, in [1, inf).
        budgets: shares, FLOP counts or times, as for `Budget`; a time has the units timed. Empty
            for 10, 25, 50 and 100 %.
        memory: peak bytes of training state and saved activations.
        second_batch: drawn independently of `batch`; None: the halves of `batch` are compared.
        units: how to divide the model; None to discover its blocks.
        forward: runs the model instead, `forward(model, batch)`, and returns the loss, or an output
            that carries one as `loss`.
        optimizer: whose steps are taken; None for AdamW.
        levels: which levels a unit may get; the default is the balancer's.
        cache: room for what cached units computed; None for the balancer's default.
        pretrained: whether the run will start from trained weights: True for all units but heads,
            False for none, None to look at the weights.
        allocator: what is believed about learning curves; None for the balancer's default.

    Raises:
        UnsupportedModelError: no units can be found.
        ValueError: a number is out of range, a budget cannot be read, or nothing may train.
        InfeasibleBudgetError: a budget buys no step of any plan; it is named.
        InfeasibleMemoryError: no plan fits the memory.

    Source: `ForecastAllocator`, `frontier`, `probe_contributions`.

    Example:
        >>> model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> def loss(model, batch):
        ...     return nn.functional.cross_entropy(model(batch[0]), batch[1])
        >>> batch = torch.randn(8, 8), torch.randint(2, (8,))
        >>> report = forecast_plans(model, batch, steps_per_epoch=50, epochs=4, budgets=["25%"],
        ...                         forward=loss, pretrained=False)
        >>> report.outlooks[0].begin.num_steps, report.outlooks[0].verdict
        (48, 'No gain expected: full training for fewer steps.')
    """
    check_integer("steps_per_epoch", steps_per_epoch, low=1)
    check_integer("epochs", epochs, low=1)
    parsed = [Budget.parse(budget, memory) for budget in budgets or _BUDGETS]
    parsed_levels = tuple(Level.parse(level) for level in levels)
    is_timed = any(budget.dimension is Dimension.SECOND for budget in parsed)
    optimizer = optimizer or torch.optim.AdamW(model.parameters())
    load = profile(
        model, batch, units=units, forward=forward, optimizer=optimizer, seconds=is_timed
    )
    found = [x.unit for x in load.loads]
    if not trainable_units(model, found):
        msg = "Expected the model to have a trainable parameter, but every one is frozen."
        raise ValueError(msg)
    pair = halves(batch) if second_batch is None else (batch, second_batch)
    worth = contributions(model, found, pair, optimizer, forward)
    case = Case(
        loads=_detachable(model, load, parsed_levels),
        fixed=load.fixed.forward,
        worth=worth,
        fresh=_fresh(model, found, pretrained),
        levels=parsed_levels,
        cache=cache or CacheSettings(),
        epoch_steps=steps_per_epoch,
        full_steps=steps_per_epoch * epochs,
        allocator=allocator or ForecastAllocator(),
    )
    return PlanReport(
        model=load.model,
        epoch_steps=steps_per_epoch,
        epochs=epochs,
        values=worth.values,
        source=worth.source,
        loss=worth.loss,
        fresh=tuple(name for name in worth.values if name in case.fresh),
        outlooks=tuple(case.outlook(budget) for budget in parsed),
    )


def _fresh(model: nn.Module, units: Sequence[Unit], pretrained: bool | None) -> frozenset[str]:
    """Names of the units that were never trained when the run begins."""
    if pretrained is None:
        return fresh_units(model, units)
    return frozenset(u.name for u in units if not pretrained or u.kind is UnitKind.HEAD)


def _detachable(
    model: nn.Module, load: LoadReport, levels: Collection[Level]
) -> tuple[UnitLoad, ...]:
    """The loads, with which units' branches can be cut, if that was asked for."""
    if not {DETACHED, LOCAL} & set(levels):
        return load.loads
    applier = PlanApplier(model, [x.unit for x in load.loads])
    return tuple(
        replace(x, can_detach=applier.why_not_detachable(x.unit.name) is None) for x in load.loads
    )
