"""The learning rate is part of a plan: shallow plans want a higher one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.optim import Optimizer

from lightning_attnbal.core import Plan, Unit, UnitKind, check_number
from lightning_attnbal.trainer._learning_rate import write_rate

RateRule = Callable[[Plan, Sequence[Unit]], float]


@dataclass(frozen=True, slots=True, kw_only=True)
class DepthRate:
    """Factor of the learning rate by how much of the depth trains.

        factor = min(most, (B / max(b, 1/2))^power)

    with B the blocks that may train and b those that do (all units where a model has no blocks).
    An optimizer that normalises its steps, as Adam does, moves every trained weight by about the
    learning rate. What a step changes in the output then grows with the number of trained blocks:
    as b if the changes add up, as √b if they are independent. The factor holds it constant. The
    rate the optimizer was given is taken to be the one for training everything, where it is 1.

    Args:
        power: 0 leaves the rate alone; 0.5 for independent changes, 1 for changes that add up.
        most: largest factor, in [1, inf); a bound for models of many blocks, set by hand.

    Raises:
        ValueError: a setting is out of range.

    Source: own.

    Example:
        >>> def unit(name, kind):
        ...     return Unit(name, 0, kind, (name,), (f"{name}.weight",), 1)
        >>> units = [unit(f"layer.{i}", UnitKind.BLOCK) for i in range(6)]
        >>> units.append(unit("head", UnitKind.HEAD))
        >>> levels = {u.name: "full" if u.name in {"layer.4", "layer.5", "head"} else "frozen"
        ...           for u in units}
        >>> DepthRate()(Plan(levels), units)
        1.7320508075688772
    """

    power: float = 0.5
    most: float = 8.0

    def __post_init__(self) -> None:
        check_number("power", self.power, low=0)
        check_number("most", self.most, low=1)

    def __call__(self, plan: Plan, units: Sequence[Unit]) -> float:
        """The factor for `plan`, given the units that may train."""
        counted = [unit for unit in units if unit.kind is UnitKind.BLOCK] or list(units)
        if not counted:
            return 1.0
        trained = sum(plan[unit.name].is_trained for unit in counted)
        return float(min(self.most, (len(counted) / max(trained, 0.5)) ** self.power))


class PlanRate:
    """Multiplies the learning rate for the length of one optimizer step, and puts it back.

    Whatever moves the learning rate between steps (a schedule over the budget, the user's own
    schedulers) never sees the factor: a hook on the optimizers puts it back as soon as a step was
    taken. With a factor of 1 nothing is touched.

    Args:
        optimizers: whose param groups are scaled.

    Example:
        >>> optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
        >>> rate = PlanRate([optimizer])
        >>> rate.begin(4.0)
        >>> optimizer.param_groups[0]["lr"]
        0.4
        >>> rate.end()
        >>> optimizer.param_groups[0]["lr"]
        0.1
    """

    def __init__(self, optimizers: Sequence[Optimizer]) -> None:
        self._optimizers = list(optimizers)
        self._kept: list[tuple[dict[str, Any], Any]] = []
        self._hooks = [o.register_step_post_hook(self._stepped) for o in self._optimizers]

    def begin(self, factor: float) -> None:
        """A step is about to be taken."""
        self.end()
        if factor == 1.0:
            return
        for optimizer in self._optimizers:
            for group in optimizer.param_groups:
                lr = group["lr"]
                is_tensor = isinstance(lr, torch.Tensor)
                self._kept.append((group, lr.clone() if is_tensor else lr))
                write_rate(group, lr * factor)

    def end(self) -> None:
        """It was taken, or it failed; safe to call twice."""
        kept, self._kept = self._kept, []
        for group, lr in kept:
            write_rate(group, lr)

    def close(self) -> None:
        """Leave the optimizers as they were found; safe to call twice."""
        self.end()
        for hook in self._hooks:
            hook.remove()

    def _stepped(self, *_: Any) -> None:
        self.end()
