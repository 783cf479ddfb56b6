"""What was measured, as a table for people and as plain data for programs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from lightning_attnbal.core import Dimension, PassCost, Quantity, UnitLoad
from lightning_attnbal.measure._graph import CriticalPath, bottlenecks, critical_path, shares
from lightning_attnbal.measure._step_time import load_from_dict

_COLUMNS = (
    *("weights\n1e6", "forward\nGFLOP", "backward\nGFLOP", "of it dW\nGFLOP"),
    *("share", "saved\nMiB", "time\nms", "update\nms"),
)


@dataclass(frozen=True, slots=True)
class LoadReport:
    """The cost of every unit for one batch, everything trained, and where it sits.

    Args:
        loads: units, forward order.
        fixed: FLOPs outside of all units that no plan changes.
        model: class of the model.

    Example:
        >>> from lightning_attnbal.core import Unit, UnitKind
        >>> cost = PassCost(forward=1e9, own_backward=1e9, full_backward=2e9)
        >>> report = LoadReport((UnitLoad(Unit("head", 0, UnitKind.HEAD, (), (), 4), cost),))
        >>> print(report.flops), report.bottlenecks
        3 GFLOP
        (None, ('head',))
        >>> LoadReport.from_dict(report.to_dict()) == report
        True
    """

    loads: tuple[UnitLoad, ...]
    fixed: PassCost = PassCost()  # noqa: RUF009 (frozen)
    model: str = "model"

    @property
    def flops(self) -> Quantity:
        """FLOPs of one batch, forward and backward, everything trained."""
        total = self.fixed.total + sum(load.flops.total for load in self.loads)
        return Quantity(float(total), Dimension.FLOP)

    @property
    def seconds(self) -> Quantity | None:
        """Sum of the units' seconds with everything trained and updated once; None if not timed."""
        costs = [load.seconds for load in self.loads if load.seconds is not None]
        if not costs or len(costs) < len(self.loads):
            return None
        return Quantity(sum(cost.total for cost in costs), Dimension.SECOND)

    @property
    def memory(self) -> Quantity:
        """Parameters, gradients, optimizer state and saved activations, everything trained."""
        amounts = (x.saved_bytes + 2 * x.parameter_bytes + x.optimizer_bytes for x in self.loads)
        return Quantity(float(sum(amounts)), Dimension.BYTE)

    @property
    def bottlenecks(self) -> tuple[str, ...]:
        """Names of the three costliest units."""
        return bottlenecks(self.loads)

    @property
    def critical_path(self) -> CriticalPath:
        """The longest chain of units that wait for one another."""
        return critical_path(self.loads)

    def table(self) -> Table:
        """One row per unit, costliest in bold; GFLOP = 1e9 FLOP, MiB = 2^20 bytes."""
        table = Table(title=f"Cognitive load of {self.model}, one batch, everything trained")
        table.add_column("unit", no_wrap=True)
        timed = self.seconds is not None
        for name in _COLUMNS if timed else _COLUMNS[:-2]:
            table.add_column(name, justify="right", no_wrap=True)
        share = shares(self.loads)
        largest = set(self.bottlenecks)
        for load in self.loads:
            name = load.unit.name
            style = "bold" if name in largest else ""
            table.add_row(name, *_cells(load, share[name]), style=style)
        return table

    def __rich__(self) -> RenderableType:
        path = self.critical_path
        parts = [f"total {self.flops}", f"memory {self.memory}"]
        if self.seconds is not None:
            parts.insert(1, f"{self.seconds}")
        if self.fixed.total:
            parts.append(f"outside of all units {Quantity(self.fixed.total, Dimension.FLOP)}")
        lines = (
            " · ".join(parts),
            f"bottlenecks: {', '.join(self.bottlenecks)}",
            f"critical path: {' → '.join(path.units)}",
            f"running branches side by side: at most {path.parallelism:.2f}x as fast",
        )
        return Group(self.table(), *map(Text, lines))

    def to_dict(self) -> dict[str, Any]:
        """Plain data that JSON can hold, derived figures included."""
        return {
            "model": self.model,
            "loads": [asdict(load) for load in self.loads],
            "fixed": asdict(self.fixed),
            "flops": self.flops.amount,
            "seconds": None if self.seconds is None else self.seconds.amount,
            "bottlenecks": list(self.bottlenecks),
            "critical_path": list(self.critical_path.units),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> LoadReport:
        """Restore a report from `to_dict`; the derived figures are computed anew."""
        loads = tuple(load_from_dict(load) for load in data["loads"])
        return cls(loads, PassCost(**data["fixed"]), data["model"])


def _cells(load: UnitLoad, share: float) -> list[str]:
    flops, timing = load.flops, load.seconds
    cells = [f"{load.unit.num_parameters / 1e6:.3g}"]
    amounts = (flops.forward, flops.full_backward, flops.weight_grad)
    cells += [f"{amount / 1e9:.3g}" for amount in amounts]
    cells += [f"{share:.1%}", f"{load.saved_bytes / 2**20:.3g}"]
    if timing is not None:
        cells += [f"{1e3 * (timing.forward + timing.full_backward):.3g}"]
        cells += [f"{1e3 * timing.optimizer:.3g}"]
    return cells
