"""What a step of one task does for the loss of another, from steps that run anyway."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import product
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from typing_extensions import override

from lightning_attnbal.core import Unit, check_choice, check_integer
from lightning_attnbal.measure import (
    Contribution,
    ContributionMeter,
    JointDirection,
    Reduction,
    joint_directions,
)
from lightning_attnbal.multitask._affinity_matrix import Affinity, affinity_matrix

Tensors = dict[str, Tensor]
"""Tensors of one unit, by the name of the parameter they belong to."""
Directions = list[JointDirection]
"""Of one unit, those of parameters that are treated alike end to end."""
_SMALL = 1 << 14  # numbers in a parameter that is always read as a whole


class AffinityMeter:
    """Collects, per unit, what a step of task i takes off the loss of task k, without extra passes.

    v[i][k] = ⟨u_i, g_k⟩, with u_i the direction that the optimizer gave the gradient of an earlier
    step of task i (`update_direction` as a step, times `momentum_gain`) and g_k the gradient of a
    step of task k. In loss units of task k per unit of learning rate, in (−inf, inf). The batches
    are drawn independently, also for i = k, so v is unbiased for ⟨E u_i, ∇L_k⟩: noise never meets
    itself. v[i][i] is the task's own contribution, on the scale of `CrossBatchMeter` in the long
    run. Momentum is in it as a factor only, because the step that is really taken mixes tasks.

    For training that serves one task per optimizer step. Call `begin` and then `see` before each
    step of a short burst: every step is crossed with the last one of each task, and takes the place
    of its own. Short, because u_i and g_k are taken at weights that lie as many steps apart.

    A unit counts for (i, k) if every parameter that the step of i moved has a gradient from k too;
    a unit that is frozen while k trains, or that k does not use (the head of i), is left out.
    Estimates that share a gradient are not independent, so `std_error` is approximate. A direction
    with NaN is counted in `skipped` with each step it meets, until the task's next step.

    Cost: T inner products over the trained weights per step, for T tasks, and T float32 copies of
    them while a burst lasts; with `stride` s about a part 1 / s of both: of large parameters a
    burst reads every s-th row only, the next burst the rows after those, and their products count
    s times, which is unbiased over s bursts. Nothing is drawn at random, and weights, gradients and
    moments are only read. Under data parallelism all ranks have the same gradients: take one rank's
    state.

    State (`state_dict`): per pair of tasks and unit count, mean and sum of squared deviations,
    combined over ranks exactly, and the kept directions, which each rank keeps to itself. All saved
    and restored, so a resumed run finds what the uninterrupted one does.

    Args:
        model: the model the units belong to.
        units: the units, forward order.
        tasks: names of the tasks, at least one, each once.
        stride: rows of which one is read, in [1, inf), in parameters of 16,384 numbers and more.

    Raises:
        ValueError: no tasks, one named twice, or a stride below 1.

    Source:
        Fifty et al., "Efficiently Identifying Task Groupings for Multi-Task Learning" (TAG),
        NeurIPS 2021, measures 1 − L_k(after a step of i) / L_k(before) on the batch of i by extra
        forward passes. Here: the first-order decrease, on another batch, from gradients at hand.

    Example:
        >>> from lightning_attnbal.core import UnitKind
        >>> model = nn.Linear(2, 1, bias=False)
        >>> unit = Unit("all", 0, UnitKind.BLOCK, ("",), ("weight",), 2)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> meter = AffinityMeter(model, [unit], ["a", "b"])
        >>> meter.begin()
        >>> for task, gradient in [("a", (3.0, 1.0)), ("b", (1.0, -1.0)), ("a", (3.0, -1.0))]:
        ...     model.weight.grad = torch.tensor([gradient])
        ...     meter.see(task, [optimizer])
        >>> {pair: found["all"].mean for pair, found in meter.estimates().items()}
        {('a', 'a'): 8.0, ('a', 'b'): 2.0, ('b', 'a'): 4.0}
        >>> meter.values("a", {"a": 1.0, "b": 0.5})
        {'all': 9.0}
    """

    REDUCTIONS: ClassVar[Mapping[str, Reduction]] = {
        "products": "moments",
        "directions": "own",
        "bursts": "own",
    }

    def __init__(
        self, model: nn.Module, units: Sequence[Unit], tasks: Sequence[str], *, stride: int = 1
    ) -> None:
        if not tasks or len(set(tasks)) < len(tasks):
            msg = f"Expected `tasks` to be at least one name, each once, but got {list(tasks)}."
            raise ValueError(msg)
        self.tasks = tuple(tasks)
        self._parameters = {unit.name: _named_once(model, unit) for unit in units}
        self._products = {pair: _Products(units) for pair in product(tasks, tasks)}
        self._directions: dict[str, dict[str, Directions]] = {}
        self._stride = check_integer("stride", stride, low=1)
        self._bursts = 0

    @property
    def skipped(self) -> int:
        """How many estimates were not finite, over all pairs and units."""
        return sum(products.skipped for products in self._products.values())

    def begin(self) -> None:
        """Forget the kept directions, for a burst begins or ends; the estimates stay."""
        self._directions = {}

    @torch.no_grad()
    def see(self, task: str, optimizers: Sequence[Optimizer]) -> None:
        """Cross the gradients of a step of `task`, which is about to be taken, with earlier ones.

        Args:
            task: whose batches gave the gradients.
            optimizers: those that hold the parameters; the gradients are accumulated and unscaled.

        Raises:
            ValueError: the meter doesn't know the task.
        """
        check_choice("task", task, self.tasks)
        self._bursts += not self._directions
        own = self._directions.setdefault(task, {})
        for unit, parameters in self._parameters.items():
            gradients = self._gradients(parameters)
            flat = _Flat(gradients)
            for earlier, directions in self._directions.items():
                moved = directions.get(unit, ())
                if moved and all(name in gradients for part in moved for name in part.names):
                    crossed = [(part.numbers, flat(part.names)) for part in moved]
                    self._products[earlier, task].add(unit, crossed)
            own.pop(unit, None)  # freed before the new one is made
            if new := self._step(parameters, gradients, optimizers):
                own[unit] = new

    def _rows(self, parameter: Tensor) -> slice | None:
        """Which rows of the parameter are read in this burst; None: all."""
        if self._stride == 1 or parameter.numel() < _SMALL or len(parameter) < self._stride:
            return None
        return slice(self._bursts % self._stride, None, self._stride)

    def _gradients(self, parameters: Mapping[str, nn.Parameter]) -> Tensors:
        """What is read of the gradients there are, of parameters that train."""
        found = {}
        for name, parameter in parameters.items():
            if parameter.requires_grad and parameter.grad is not None:
                rows, gradient = self._rows(parameter), parameter.grad
                if rows is not None:
                    gradient = _dense(gradient)[rows].contiguous()
                found[name] = gradient
        return found

    def _step(
        self,
        parameters: Mapping[str, nn.Parameter],
        gradients: Tensors,
        optimizers: Sequence[Optimizer],
    ) -> Directions:
        """Where the optimizers would go along these gradients."""
        rows = {name: self._rows(parameters[name]) for name in gradients}
        found = joint_directions(optimizers, parameters, gradients, as_step=True, rows=rows)
        for part in found:
            if rows[part.names[0]] is not None:
                part.numbers.mul_(self._stride)
        return found

    def forget(self, units: Iterable[str]) -> None:
        """Start the estimates of `units` afresh, because new ones are about to be collected."""
        units = list(units)
        for products in self._products.values():
            products.forget(units)

    def estimates(self) -> dict[tuple[str, str], dict[str, Contribution]]:
        """The estimates by (task i that steps, task k that gains) and unit."""
        return {pair: found for pair, p in self._products.items() if (found := p.compute())}

    @property
    def mean_seen(self) -> float:
        """Estimates of what a task does for itself, mean over the tasks."""
        own = (self._products[task, task].compute().values() for task in self.tasks)
        most = [max((found.count for found in units), default=0) for units in own]
        return sum(most) / len(most)

    def values(self, task: str, weights: Mapping[str, float]) -> dict[str, float]:
        """What a step of `task` is worth per unit, to all tasks together: Σ_k w_k · v[task][k].

        A pair of which nothing is known counts 0, and so does a task without a weight.

        Raises:
            ValueError: the meter doesn't know the task, or one of the weights'.
        """
        check_choice("task", task, self.tasks)
        totals: dict[str, float] = {}
        for other, weight in weights.items():
            check_choice("weights", other, self.tasks)
            for unit, found in self._products[task, other].compute().items():
                totals[unit] = totals.get(unit, 0.0) + weight * found.mean
        return {unit: totals[unit] for unit in self._parameters if unit in totals}

    def affinity(self, units: Collection[str] | None = None) -> Affinity:
        """How much each task's step does for each other task, in [−1, 1]: see `affinity_matrix`."""
        return affinity_matrix(self.estimates(), self.tasks, units)

    def merge(self, states: Iterable[Mapping[str, Any]]) -> None:
        """Become the meter that took in what all of `states` did; see `ContributionMeter.merge`."""
        states = list(states)
        for (i, k), products in self._products.items():
            products.merge([state["products"][i][k] for state in states])

    def state_dict(self) -> dict[str, Any]:
        """Plain data for a checkpoint."""
        found = {i: {k: self._products[i, k].state_dict() for k in self.tasks} for i in self.tasks}
        directions = {
            task: {
                unit: [(part.names, part.numbers) for part in parts] for unit, parts in d.items()
            }
            for task, d in self._directions.items()
        }
        return {"products": found, "directions": directions, "bursts": self._bursts}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave; tasks and units that are gone are dropped."""
        for (i, k), products in self._products.items():
            saved = state["products"].get(i, {}).get(k)
            products.load_state_dict(saved or {"moments": {}, "skipped": 0})
        self._directions = {
            task: {u: self._placed(u, parts) for u, parts in d.items() if u in self._parameters}
            for task, d in state["directions"].items()
            if task in self.tasks
        }
        self._bursts = state["bursts"]

    def _placed(self, unit: str, parts: Iterable[tuple[Sequence[str], Tensor]]) -> Directions:
        """The directions where their parameters are."""
        own = self._parameters[unit]
        return [JointDirection(tuple(n), d.to(own[n[0]].device)) for n, d in parts]


class _Flat:
    """Gradients of some parameters end to end, each such row made once."""

    def __init__(self, gradients: Tensors) -> None:
        self._gradients = gradients
        self._made: dict[tuple[str, ...], Tensor] = {}

    def __call__(self, names: tuple[str, ...]) -> Tensor:
        if names not in self._made:
            self._made[names] = torch.cat([_dense(self._gradients[n]).flatten() for n in names])
        return self._made[names]


class _Products(ContributionMeter[list[tuple[Tensor, Tensor]]]):
    """The estimates of one pair of tasks; a sample is pairs (direction of i, gradient of k)."""

    @override
    def estimate(self, unit: str, sample: list[tuple[Tensor, Tensor]]) -> float:
        return float(sum(torch.dot(direction, g.to(direction)) for direction, g in sample))


def _dense(gradient: Tensor) -> Tensor:
    return gradient if gradient.layout == torch.strided else gradient.to_dense()


def _named_once(model: nn.Module, unit: Unit) -> dict[str, nn.Parameter]:
    """The unit's parameters by name, tied ones under one of their names."""
    by_name = dict(model.named_parameters(remove_duplicate=False))
    names = {id(by_name[name]): name for name in unit.parameters}
    return {name: by_name[name] for name in names.values()}
