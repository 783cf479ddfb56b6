"""What optimizer steps that run anyway say about the units they train."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from typing_extensions import override

from lightning_attnbal.core import Unit
from lightning_attnbal.measure.contribution._first_order import cross_decrease, gradient_update
from lightning_attnbal.measure.contribution._meter import ContributionMeter, Reduction
from lightning_attnbal.measure.contribution._units import (
    Copies,
    copy_weights,
    learning_rates,
    unit_parameters,
)


@dataclass(frozen=True, slots=True)
class Move:
    """A parameter that holds its gradient, its weights before the step, and the step's rate."""

    parameter: nn.Parameter
    before: Tensor
    lr: float


class GradientUpdateMeter(ContributionMeter[Sequence[Move]]):
    """Collects `gradient_update` per unit from steps that run anyway.

    Call `before_step` just before an optimizer step and `after_step` right after it, while the
    gradients are still there. Biased upwards, see `gradient_update`; `CrossBatchMeter` is not.

    State (`state_dict`): per unit count, mean and sum of squared deviations; saved and restored,
    combined over ranks exactly.

    Args:
        model: the model the units belong to.
        units: the units, forward order.

    Example:
        >>> from lightning_attnbal.core import Unit, UnitKind
        >>> model = nn.Linear(2, 1)
        >>> unit = Unit("head", 0, UnitKind.HEAD, ("",), ("weight", "bias"), 3)
        >>> meter = GradientUpdateMeter(model, [unit])
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> for _ in range(2):
        ...     optimizer.zero_grad()
        ...     model(torch.ones(4, 2)).sum().backward()
        ...     meter.before_step()
        ...     optimizer.step()
        ...     meter.after_step([optimizer])
        >>> meter.compute()["head"].count, round(meter.compute()["head"].mean, 2)
        (2, 48.0)
    """

    def __init__(self, model: nn.Module, units: Sequence[Unit]) -> None:
        super().__init__(units)
        self._parameters = unit_parameters(model, units)
        self._before: Copies = {}

    @torch.no_grad()
    def before_step(self) -> None:
        """Copy the weights of every unit that is about to move."""
        self._before = copy_weights(self._parameters)

    def after_step(self, optimizers: Sequence[torch.optim.Optimizer]) -> None:
        """Compare with the weights after the step and add one estimate per unit that trained."""
        rate = learning_rates(optimizers)
        before, self._before = self._before, {}
        for name, pairs in before.items():
            moves = [Move(p, b, rate[id(p)]) for p, b in pairs if rate.get(id(p), 0.0) > 0]
            if moves:
                self.add(name, moves)

    @override
    def estimate(self, unit: str, sample: Sequence[Move]) -> float:
        return sum(gradient_update([m.before], [m.parameter], m.lr) for m in sample)


class CrossBatchMeter(ContributionMeter[Sequence[tuple[nn.Parameter, Tensor]]]):
    """Collects `cross_decrease` of a step's update on the next step's batch, without extra passes.

    v = ⟨−Δ_t / lr, g_{t+1}⟩, with Δ_t = w_{t+1} − w_t the step that was really taken (momentum,
    preconditioning and weight decay included) and g_{t+1} the gradient of the next batch at
    w_{t+1}. In loss units per unit of learning rate, in (−inf, inf). Unbiased for the slope
    ⟨−Δ_t / lr, ∇L(w_{t+1})⟩ if batches are drawn independently; that slope lies after the step, so
    it is below the one before it by lr · curvature along the step. Biased where the two batches
    share samples.

    `before_step(starts=True)` begins an estimate, `after_step` keeps the update, and the next
    `before_step`, whatever its `starts`, completes it. So a step that is sampled needs the call
    before the step that follows, too; `is_pending` says so. Started at every step, each gradient
    serves both ways round: its step is judged by the next batch, and it judges the step before. The
    mirrored product ⟨u_{t+1}, g_t⟩ is left out: with momentum u_{t+1} contains g_t.

    Gradients must be those of the whole step: accumulated and unscaled. A unit of which a parameter
    was frozen in between, or that got no gradient from the next batch, is dropped. The copies are
    one tensor per parameter with a gradient, from `before_step` to the next one, where they are
    freed before new ones are made. A step that the optimizer skipped (a gradient scaler does)
    counts 0.

    State (`state_dict`): per unit count, mean and sum of squared deviations; saved and restored,
    combined over ranks exactly; and the updates of an estimate that is pending (as large as the
    weights that moved), so that a resumed run finds what the uninterrupted one does.

    Args:
        model: the model the units belong to.
        units: the units, forward order.

    Example:
        >>> from lightning_attnbal.core import Unit, UnitKind
        >>> model = nn.Linear(2, 1)
        >>> unit = Unit("head", 0, UnitKind.HEAD, ("",), ("weight", "bias"), 3)
        >>> meter = CrossBatchMeter(model, [unit])
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> for step, batch in enumerate([torch.ones(4, 2), 2 * torch.ones(4, 2)]):
        ...     optimizer.zero_grad()
        ...     model(batch).sum().backward()
        ...     meter.before_step(starts=step == 0)  # the gradients are (4, 4, 4), then (8, 8, 4)
        ...     optimizer.step()
        ...     meter.after_step([optimizer])
        >>> meter.compute()["head"].count, round(meter.compute()["head"].mean, 2)
        (1, 80.0)
    """

    REDUCTIONS: ClassVar[Mapping[str, Reduction]] = {
        **ContributionMeter.REDUCTIONS,
        "pending": "own",
    }

    def __init__(self, model: nn.Module, units: Sequence[Unit]) -> None:
        super().__init__(units)
        self._parameters = unit_parameters(model, units)
        self._before: Copies = {}
        self._pending: Copies = {}
        self._rate: dict[int, float] = {}

    @property
    def is_pending(self) -> bool:
        """Whether the next `before_step` has an estimate to complete."""
        return bool(self._pending)

    @torch.no_grad()
    def before_step(
        self, *, starts: bool = True, optimizers: Sequence[torch.optim.Optimizer] = ()
    ) -> None:
        """Complete what is pending with the fresh gradients; with `starts`, begin anew.

        Pass the optimizers where their learning rates may not outlast the step.
        """
        for name, updates in self._pending.items():
            is_whole = all(p.requires_grad for p, _ in updates)
            if is_whole and any(p.grad is not None for p, _ in updates):
                self.add(name, updates)
        self._pending = {}
        self._before = copy_weights(self._parameters) if starts else {}
        self._rate = learning_rates(optimizers)

    @torch.no_grad()
    def after_step(self, optimizers: Sequence[torch.optim.Optimizer]) -> None:
        """Turn the copies into updates per unit of learning rate; does nothing if none began."""
        rate = self._rate or learning_rates(optimizers)
        updates = {
            name: [
                (p, b.sub_(p.detach()).div_(rate[id(p)]))
                for p, b in pairs
                if rate.get(id(p), 0.0) > 0
            ]
            for name, pairs in self._before.items()
        }
        self._pending = {name: pairs for name, pairs in updates.items() if pairs}
        self._before = {}

    @override
    def estimate(self, unit: str, sample: Sequence[tuple[nn.Parameter, Tensor]]) -> float:
        pairs = [(update, p.grad) for p, update in sample if p.grad is not None]
        return cross_decrease([u for u, _ in pairs], [g for _, g in pairs])

    @override
    def forget(self, units: Iterable[str]) -> None:
        units = list(units)
        super().forget(units)
        for name in units:
            self._pending.pop(name, None)

    @override
    def state_dict(self) -> dict[str, Any]:
        pending = {
            name: [(_position(p, self._parameters[name]), update) for p, update in pairs]
            for name, pairs in self._pending.items()
        }
        return {**super().state_dict(), "pending": pending}

    @override
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self._before = {}
        self._pending = {
            name: [_placed(self._parameters[name][at], update) for at, update in pairs]
            for name, pairs in state["pending"].items()
            if name in self._parameters
        }


def _position(parameter: nn.Parameter, among: Sequence[nn.Parameter]) -> int:
    return next(i for i, other in enumerate(among) if other is parameter)


def _placed(parameter: nn.Parameter, update: Tensor) -> tuple[nn.Parameter, Tensor]:
    """An update where its parameter is; a copy, for it is changed in place."""
    return parameter, update.to(parameter.device, copy=True)
