"""What training each unit is worth, as far as a run has seen."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lightning_attnbal.core import Plan, Unit
from lightning_attnbal.measure import CrossBatchMeter, probe_contributions


class Worth:
    """Contributions: measured where a unit trains, remembered or probed where it does not.

    Args:
        model: the model in training.
        units: its units.
        optimizers: all optimizers of the run.
        trainable: unit name → whether it may train at all.

    Attributes:
        estimates: unit name → contribution, as measured so far.
    """

    def __init__(
        self,
        model: nn.Module,
        units: Sequence[Unit],
        optimizers: Sequence[torch.optim.Optimizer],
        trainable: Mapping[str, bool],
    ) -> None:
        self._model = model
        self._optimizers = optimizers
        self._trainable = dict(trainable)
        self._meter = CrossBatchMeter(model, units)
        self.estimates: Callable[[], Mapping[str, float]] = self._metered
        self._first_values: dict[str, float] = {}
        self._probed: dict[str, float] = {}

    def _metered(self) -> dict[str, float]:
        return {name: estimate.mean for name, estimate in self._meter.compute().items()}

    def before_step(self, *, is_sampled: bool) -> None:
        """Call right before an optimizer step; if it is sampled, its contribution is measured."""
        if is_sampled or self._meter.is_pending:
            self._meter.before_step(starts=is_sampled, optimizers=self._optimizers)

    def after_step(self) -> None:
        """Call after a sampled step, gradients still there."""
        self._meter.after_step(self._optimizers)

    def values(self, plan: Plan | None) -> dict[str, float]:
        """Contribution per unit; estimates from before a unit was frozen are brought up to date.

        A frozen unit's estimate dates from when the loss was higher. It is replaced by what a probe
        found since, or scaled by how far the estimates of the units that kept training have
        fallen. A unit of which nothing is known counts as the mean of the others.

        Args:
            plan: in force; None: everything trains.
        """
        now = {name: max(0.0, value) for name, value in self.estimates().items()}
        for name, value in now.items():
            self._first_values.setdefault(name, value)
        trained = set(plan.trained) if plan is not None else set(now)
        fresh = [name for name in now if name in trained]
        before = sum(self._first_values[name] for name in fresh)
        ageing = min(1.0, sum(now[name] for name in fresh) / before) if before > 0 else 1.0
        aged = {n: v if n in trained else self._first_values[n] * ageing for n, v in now.items()}
        aged |= {name: value for name, value in self._probed.items() if name not in trained}
        known = [value for name, value in aged.items() if self._trainable[name]]
        unknown = sum(known) / len(known) if known else 0.0
        return {
            name: aged.get(name, unknown if may_train else 0.0)
            for name, may_train in self._trainable.items()
        }

    def probe(self, units: Sequence[Unit], losses: Sequence[Callable[[], Tensor]]) -> None:
        """Measure units that do not train."""
        found = probe_contributions(self._model, units, losses, self._optimizers)
        self._probed |= {n: max(0.0, c.mean) for n, c in found.items() if math.isfinite(c.mean)}

    def state_dict(self) -> dict[str, Any]:
        """Plain data for a checkpoint."""
        return {
            "meter": self._meter.state_dict(),
            "first_values": dict(self._first_values),
            "probed": dict(self._probed),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self._meter.load_state_dict(state["meter"])
        self._first_values = {k: float(v) for k, v in state["first_values"].items()}
        self._probed = {k: float(v) for k, v in state["probed"].items()}
