"""What was measured, as a table for people and as plain data for programs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console, ConsoleOptions, RenderableType
from rich.table import Table
from rich.text import Text

from lightning_attnbal.core import Dimension, PassCost, Quantity, UnitLoad
from lightning_attnbal.measure._graph import CriticalPath, bottlenecks, critical_path, shares
from lightning_attnbal.measure._step_time import load_from_dict

_NARROW = 100  # columns of a terminal below which two of the table are left out
_SCALES = ((1e12, "TFLOP"), (1e9, "GFLOP"), (1e6, "MFLOP"), (1e3, "kFLOP"))


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

    def table(self, *, plain: bool = False, narrow: bool = False) -> Table:
        """One row per unit, costliest in bold; GFLOP = 1e9 FLOP, MiB = 2^20 bytes.

        Args:
            plain: without lines, for files and pipes.
            narrow: without sizes and update times, for 80 columns.
        """
        box = None if plain else SIMPLE_HEAD
        table = Table(box=box, show_edge=False, pad_edge=False, collapse_padding=not plain)
        table.add_column("unit", overflow="fold")
        share, largest = shares(self.loads), set(self.bottlenecks)
        scale, unit = self._scale
        rows = [_cells(load, share[load.unit.name], scale, unit) for load in self.loads]
        is_timed = self.seconds is not None
        names = [
            name
            for name in (rows[0] if rows else ())
            if not (narrow and name in _WIDE_ONLY) and (is_timed or name not in _TIMES)
        ]
        for name in names:
            table.add_column(name, justify="right", no_wrap=True)
        for load, row in zip(self.loads, rows, strict=True):
            style = "bold" if load.unit.name in largest else ""
            table.add_row(load.unit.name, *(row[name] for name in names), style=style)
        return table

    @property
    def _scale(self) -> tuple[float, str]:
        """The unit in which FLOPs have few digits."""
        total = self.flops.amount
        return next(((size, name) for size, name in _SCALES if total >= size), (1.0, "FLOP"))

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> Iterator[RenderableType]:
        plain, narrow = not options.is_terminal, options.max_width < _NARROW
        yield Text(f"Cognitive load of {self.model}, one batch, everything trained")
        yield self.table(plain=plain, narrow=narrow)
        yield Text()
        path = self.critical_path
        parts = [f"total {self.flops}", f"memory {self.memory}"]
        if self.seconds is not None:
            parts.insert(1, f"{self.seconds}")
        if self.fixed.total:
            parts.append(f"outside of all units {Quantity(self.fixed.total, Dimension.FLOP)}")
        yield Text(" · ".join(parts))
        yield Text(f"bottlenecks: {', '.join(self.bottlenecks)}")
        yield Text(f"critical path: {' → '.join(path.units)}")
        yield Text(f"running branches side by side: at most {path.parallelism:.2f}x as fast")
        if narrow:
            yield Text(f"sizes and update times: from {_NARROW} columns on, or with JSON")

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


_TIMES = ("time\nms", "update\nms")
_WIDE_ONLY = ("weights\n1e6", "update\nms")


def _cells(load: UnitLoad, share: float, scale: float, unit: str) -> dict[str, str]:
    """Column → cell; FLOPs in the given unit."""
    flops = load.flops
    timing = load.seconds or PassCost()
    return {
        "weights\n1e6": _short(load.unit.num_parameters / 1e6),
        f"forward\n{unit}": _short(flops.forward / scale),
        f"backward\n{unit}": _short(flops.full_backward / scale),
        f"of it dW\n{unit}": _short(flops.weight_grad / scale),
        "share": f"{share:.1%}",
        "saved\nMiB": _short(load.saved_bytes / 2**20),
        "time\nms": _short(1e3 * (timing.forward + timing.full_backward)),
        "update\nms": _short(1e3 * timing.optimizer),
    }


def _short(amount: float) -> str:
    """Three digits in at most six characters."""
    if 0 < amount < 0.01:
        return "<0.01"
    return f"{amount:,.0f}" if amount >= 100 else f"{amount:.3g}"
