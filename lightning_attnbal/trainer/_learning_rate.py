"""The learning rate follows budget spent."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch.optim import Optimizer

from lightning_attnbal.trainer._schedule import Schedule


class BudgetLR:
    """Sets every param group to its base learning rate times the factor for the budget spent.

        lr_g = base_g · schedule(progress)

    The base is what the groups held at construction. Groups are known by position (optimizer,
    group), on disk too. On resume the optimizers hold scheduled learning rates; the saved bases
    replace what was read from them, so a schedule never compounds.

    Args:
        optimizers: any torch optimizers; a group's `lr` may be a number, or a tensor, which is then
            changed in place.
        schedule: factor over budget spent.

    Raises:
        ValueError: a group was added since construction, or a saved state has other groups.

    Example:
        >>> import torch
        >>> from lightning_attnbal.trainer import BudgetLR, LinearSchedule
        >>> optimizer = torch.optim.SGD([torch.zeros(2, requires_grad=True)], lr=0.4)
        >>> learning_rate = BudgetLR([optimizer], LinearSchedule())
        >>> learning_rate.set(0.75)
        >>> optimizer.param_groups[0]["lr"]
        0.1
        >>> learning_rate.restore()
        >>> optimizer.param_groups[0]["lr"]
        0.4
    """

    def __init__(self, optimizers: Sequence[Optimizer], schedule: Schedule) -> None:
        self.optimizers = list(optimizers)
        self.schedule = schedule
        self._bases = [[float(group["lr"]) for group in o.param_groups] for o in self.optimizers]

    def set(self, progress: float) -> None:
        """Apply the factor at `progress`, the share of budget spent (clipped to [0, 1])."""
        factor = self.schedule(progress)
        for group, base in self._groups():
            write_rate(group, base * factor)

    def restore(self) -> None:
        """Put the base learning rates back."""
        for group, base in self._groups():
            write_rate(group, base)

    def state_dict(self) -> dict[str, Any]:
        """The base learning rates, one list per optimizer."""
        return {"base_lrs": [list(bases) for bases in self._bases]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take the bases of `state_dict`; the optimizers change at the next `set`."""
        saved = [[float(lr) for lr in bases] for bases in state["base_lrs"]]
        _check_groups([len(bases) for bases in saved], [len(bases) for bases in self._bases])
        self._bases = saved

    def _groups(self) -> Iterator[tuple[dict[str, Any], float]]:
        """Every param group with its base."""
        _check_groups(
            [len(o.param_groups) for o in self.optimizers], [len(bases) for bases in self._bases]
        )
        for optimizer, bases in zip(self.optimizers, self._bases, strict=True):
            yield from zip(optimizer.param_groups, bases, strict=True)


def _check_groups(found: list[int], expected: list[int]) -> None:
    if found != expected:
        msg = (
            f"Expected {expected} param groups per optimizer, as when the base learning rates were "
            f"read, but got {found}."
        )
        raise ValueError(msg)


def write_rate(group: dict[str, Any], lr: float) -> None:
    """Set the learning rate; a tensor keeps its identity, which captured graphs hold on to."""
    if isinstance(group["lr"], torch.Tensor):
        group["lr"].fill_(lr)
    else:
        group["lr"] = lr
