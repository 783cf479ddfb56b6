"""The model's half of a balanced run: what it costs, what training it is worth, what it does now.

Knows no Trainer: batches and plans in, numbers out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lightning_attnbal.apply import PlanApplier
from lightning_attnbal.apply.cache import CacheSettings
from lightning_attnbal.callbacks._caching import Caches
from lightning_attnbal.callbacks._own_backward import OwnBackward
from lightning_attnbal.callbacks._shapes import Loads, ShapeCosts, batch_shape
from lightning_attnbal.callbacks._worth import Worth
from lightning_attnbal.core import (
    CACHED,
    FROZEN,
    FULL,
    Dimension,
    Level,
    LevelKind,
    Plan,
    Problem,
    Unit,
    UnsupportedModelError,
)
from lightning_attnbal.measure import (
    StepTimeModel,
    Trace,
    UnitTracer,
    build_problem,
    count_fixed,
    count_units,
    fresh_units,
    order_units,
    time_units,
)

Counted = tuple[Hashable, tuple[Loads, float] | None]
"""Shape of a batch; its loads and the FLOPs that no plan changes, or None if told before."""


class Session:
    """Everything that is attached to the model while it trains; `close` takes it all off again.

    Args:
        model: the model in training.
        units: its units; re-ordered by the first forward pass.
        optimizers: all optimizers of the run.
        levels: which levels may be planned.
        moments: what happens to the optimizer moments of a unit that gets frozen.
        cache: how a frozen prefix may be cached; None: it may not.
        is_timed: whether the budget is a time.
        beside: session of another task on the same model, whose applier and caches this one uses.

    Attributes:
        plan: what the model does in this session's batches; None before the first plan.
        needs_inputs: whether the inputs of one batch are to be kept, for `fit_seconds`.
        worth: what training each unit is worth.
        counts_backward: whether the cost of a backward pass that the module overrides is counted,
            which changes the first batch of each shape within rounding.

    Raises:
        UnsupportedModelError: no parameter of the model is trainable.
    """

    def __init__(
        self,
        model: nn.Module,
        units: Sequence[Unit],
        optimizers: Sequence[torch.optim.Optimizer],
        levels: Sequence[Level],
        moments: Literal["keep", "drop"] = "keep",
        cache: CacheSettings | None = None,
        *,
        is_timed: bool = False,
        beside: Session | None = None,
    ) -> None:
        self.model = model
        self.units = tuple(units)
        self.optimizers = list(optimizers)
        self.levels = tuple(levels)
        parameters = dict(model.named_parameters(remove_duplicate=False))
        self._trainable = {name for name, p in parameters.items() if p.requires_grad}
        self.trainable = {
            unit.name: any(name in self._trainable for name in unit.parameters)
            for unit in self.units
        }
        if not any(self.trainable.values()):
            msg = (
                "Expected the model to have a trainable parameter, but every one of "
                f"{len(parameters)} has requires_grad=False. Unfreeze what may be trained."
            )
            raise UnsupportedModelError(msg)
        self._order(self.units)
        if beside is None:
            settings = cache if CACHED in self.levels else None
            self.caches = Caches(model, self.units, settings, is_timed=is_timed)
            prefix_cache = self.caches.prefix
            self.applier = PlanApplier(model, self.units, moments=moments, cache=prefix_cache)
        else:
            self.caches, self.applier = beside.caches, beside.applier
        self.plan: Plan | None = None
        self.worth = Worth(model, self.units, self.optimizers, self.trainable)
        self.fresh = fresh_units(model, self.units)
        self.shapes = ShapeCosts()
        self._memo: dict[Any, Any] = {}
        self._tracer: UnitTracer | None = None
        self._shape: Hashable = ()
        self._told: set[Hashable] = set()
        self._cuttable: dict[str, bool] = {}
        self.needs_inputs = False
        self._kept: Trace | None = None
        self.step_time: StepTimeModel | None = None
        self._observed: dict[Plan, float] = {}
        self.counts_backward = True
        self._own_backward = OwnBackward(model)

    def _order(self, units: Sequence[Unit]) -> None:
        """Take the units in this order, and with it the plan that trains all that may train."""
        self.units = tuple(units)
        may_train = self.trainable
        self.full_plan = Plan({u.name: FULL if may_train[u.name] else FROZEN for u in self.units})

    def begin_batch(self, batch: Any) -> None:
        """Look at the shapes of `batch`; the first batch of a shape is traced on its way."""
        self._shape = batch_shape(batch)
        lacks_inputs = self.needs_inputs and self._kept is None
        if self._shape not in self.shapes or lacks_inputs:
            self._tracer = UnitTracer(self.model, self.units, keep_inputs=lacks_inputs)
            self._tracer.start()
        self.caches.begin_step(is_traced=self._tracer is not None)

    def end_forward(self, loss: Tensor | None = None) -> None:
        """The forward pass is over: count what a traced batch costs. Does nothing otherwise."""
        self.caches.end_forward(loss)
        if self._tracer is None:
            return
        tracer, self._tracer = self._tracer, None
        trace = tracer.stop(loss)
        if self.needs_inputs and self._kept is None:
            self._kept = trace
        if not self._cuttable:
            self._order(order_units(self.units, trace.calls))
            self._cuttable = {u.name: self._can_detach(u) for u in self.units}
        with self.applier.without_cuts():
            loads = count_units(
                self.model,
                self.units,
                trace,
                optimizer=self.optimizers[0],
                trainable=self._trainable,
                memo=self._memo,
            )
            fixed = count_fixed(self.model, self.units, trace, memo=self._memo).forward
        loads = tuple(replace(x, can_detach=self._cuttable[x.unit.name]) for x in loads)
        self.shapes.add(self._shape, loads, fixed)
        if loss is not None and self.counts_backward:
            self._own_backward.start()

    def end_backward(self) -> None:
        """The gradients are there; where the module has its own way to them, that was counted."""
        self.caches.end_backward()
        counted = self._own_backward.stop()
        if counted is None:
            return
        plan = self.plan or self.full_plan
        forwards = self.shapes.forwards(self._shape).items()
        forward = sum(flops for name, flops in forwards if plan[name] != CACHED)
        planned = self.shapes.cost(self._shape, plan) - forward - self.shapes.fixed_of(self._shape)
        if planned > 0:
            self.shapes.scale_backward(self._shape, counted / planned)

    def _can_detach(self, unit: Unit) -> bool:
        """Whether a menu may offer to cut the unit's branches."""
        wanted = any(level.kind in {LevelKind.DETACHED, LevelKind.LOCAL} for level in self.levels)
        return wanted and self.applier.why_not_detachable(unit.name) is None

    @property
    def full_flops(self) -> float:
        """FLOPs of the batch at hand with everything trained."""
        return self.shapes.cost(self._shape, self.full_plan)

    def end_batch(self) -> tuple[float, float]:
        """(FLOPs of this batch under the current plan, FLOPs with everything trained)."""
        self.end_forward()
        self.shapes.book(self._shape)
        plan = self.plan or self.full_plan
        extra = self.caches.end_step(plan, self.shapes.forwards(self._shape))
        return self.shapes.cost(self._shape, plan) + extra, self.full_flops

    def tell(self) -> Counted:
        """What was counted of the batch at hand, for other ranks; its loads once per shape."""
        is_new = self._shape not in self._told
        self._told.add(self._shape)
        return self._shape, self.shapes.of(self._shape) if is_new else None

    def hear(self, counted: Counted) -> None:
        """A batch of another rank is at hand."""
        self._shape, found = counted
        if found is None or self._shape in self.shapes:
            return
        loads, fixed = found
        if not self._cuttable:
            self._order([load.unit for load in loads])
            self._cuttable = {u.name: self._can_detach(u) for u in self.units}
        self.shapes.add(self._shape, loads, fixed)

    def fill_left(self, plan: Plan) -> float:
        """Batches that must still be run through the plan's prefix until its cache is full."""
        return self.caches.fill_left(plan, self.shapes.mean_forwards)

    def most_extra(self, plan: Plan) -> float:
        """The most that checks of the cache can add to a batch, in FLOPs."""
        return self.caches.most(plan, self.shapes.mean_forwards)

    def cost_per_batch(self, dimension: Dimension, plan: Plan | None = None) -> float:
        """Mean cost of a batch under `plan` (default: the current one), over the shapes so far."""
        plan = plan or self.plan or self.full_plan
        if dimension is Dimension.SECOND:
            assert self.step_time is not None
            return self.step_time.predict(plan) / self.step_time.batches_per_step
        return self.shapes.mean_cost(plan)

    def fit_seconds(self, seconds_per_step: float, batches_per_step: int) -> None:
        """Learn what plans take from a step under the current one.

        The first time each unit's calls are run again and timed, a few steps' worth of compute.
        """
        if self.step_time is None:
            assert self._kept is not None
            loads = time_units(
                self.model,
                self.shapes.loads,
                self._kept,
                optimizer=self.optimizers[0],
                trainable=self._trainable,
            )
            self.step_time = StepTimeModel(loads, batches_per_step=batches_per_step)
            self.needs_inputs, self._kept = False, None
        self._observed[self.caches.effective(self.plan or self.full_plan)] = seconds_per_step
        self.step_time = self.step_time.fit(list(self._observed.items()))

    def values(self) -> dict[str, float]:
        """Contribution per unit, as far as it is known by now."""
        found = self.worth.values(self.plan)
        return {unit.name: found[unit.name] for unit in self.units}

    def probe_cost(self, batch: Any) -> float:
        """FLOPs of a probe with this batch, at most; NaN if its shape was never counted."""
        shape = batch_shape(batch)
        return self.shapes.cost(shape, self.full_plan) if shape in self.shapes else math.nan

    def probe(self, losses: Sequence[Callable[[], Tensor]]) -> None:
        """Measure the units that could train and do not."""
        plan = self.plan or self.full_plan
        resting = [
            replace(u, parameters=tuple(n for n in u.parameters if n in self._trainable))
            for u in self.units
            if self.trainable[u.name] and u.name not in plan.trained
        ]
        with self.applier.without_cuts():
            self.worth.probe(resting, losses)

    def problem(self, dimension: Dimension, batches_per_step: int) -> Problem:
        """The allocation problem per optimizer step, with the contributions known so far.

        Before there are any, every unit is worth the same. Later none is worth less than a
        hundredth of their mean: what was measured as 0 may be noise, and there may be budget.
        """
        values = {name: v for name, v in self.values().items() if self.trainable[name]}
        least = 0.01 * sum(values.values()) / len(values) or 1.0
        values = {name: max(least, value) for name, value in values.items()}
        loads, fixed = self.shapes.loads, self.shapes.fixed * batches_per_step
        if dimension is Dimension.SECOND:
            assert self.step_time is not None
            loads, fixed = self.step_time.scaled_loads(), self.step_time.constant
        return build_problem(
            loads,
            values,
            self.levels,
            dimension=dimension,
            fixed=fixed,
            batches_per_step=batches_per_step,
            caching=self.caches.terms(loads, is_timed=dimension is Dimension.SECOND),
        )

    def apply(self, plan: Plan) -> None:
        """Make the model do what `plan` says."""
        self.applier.apply(plan, self.optimizers)
        self.plan = plan
        self.caches.apply(plan)

    def resume(self, plan: Plan) -> None:
        """Make the model do what `plan` says, which it did before; nothing is booked."""
        self.applier.apply(plan, self.optimizers)
        self.plan = plan

    def close(self) -> None:
        """Leave the model as it was found; safe to call twice."""
        if self._tracer is not None:
            self._tracer.stop()
            self._tracer = None
        self._own_backward.stop()
        self.applier.undo()
        self.plan = None
        self.caches.close()

    def state_dict(self) -> dict[str, Any]:
        """Plain data for a checkpoint."""
        return {
            "units": [unit.name for unit in self.units],
            "shapes": self.shapes.state_dict(),
            **self.worth.state_dict(),
            "cuttable": dict(self._cuttable),
            "fresh": sorted(self.fresh),
            "step_time": None if self.step_time is None else self.step_time.to_dict(),
            "caches": self.caches.state_dict(),
            "observed": [(plan.to_dict(), t) for plan, t in self._observed.items()],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave; the plan is the caller's to apply again.

        Raises:
            ValueError: the model's units are not those of the checkpoint.
        """
        by_name = {unit.name: unit for unit in self.units}
        if set(by_name) != set(state["units"]):
            odd = ", ".join(sorted(set(by_name) ^ set(state["units"])))
            msg = (
                "Expected the model to have the units of the checkpoint, but these are only in "
                f"one of the two: {odd}. Resume with the same model and `units`."
            )
            raise ValueError(msg)
        self._order([replace(by_name[name], index=i) for i, name in enumerate(state["units"])])
        self.shapes.load_state_dict(state["shapes"])
        self.worth.load_state_dict(state)
        self._cuttable = {k: bool(v) for k, v in state["cuttable"].items()}
        self.fresh = frozenset(state["fresh"])
        if state["step_time"] is not None:
            self.step_time = StepTimeModel.from_dict(state["step_time"])
        self.caches.load_state_dict(state["caches"])
        self._observed = {Plan.from_dict(plan): t for plan, t in state["observed"]}
