"""What happens in a run, as typed events; everything that is shown is drawn from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import ClassVar

from lightning_attnbal.core import Dimension, Plan, Unit, UnitKind
from lightning_attnbal.tracking._environment import Environment
from lightning_attnbal.tracking._event import FORMAT_VERSION, Event


@dataclass(frozen=True, kw_only=True)
class UnitInfo:
    """A unit as the stream knows it: name, position in forward order, role, and size.

    Example:
        >>> unit = Unit("head", 7, UnitKind.HEAD, ("head",), ("head.weight",), 16)
        >>> UnitInfo.of(unit)
        UnitInfo(name='head', index=7, kind=<UnitKind.HEAD: 'head'>, num_parameters=16)
    """

    name: str
    index: int
    kind: UnitKind
    num_parameters: int

    @classmethod
    def of(cls, unit: Unit) -> UnitInfo:
        """What the stream keeps of a unit."""
        size = unit.num_parameters
        return cls(name=unit.name, index=unit.index, kind=unit.kind, num_parameters=size)


@dataclass(frozen=True, kw_only=True)
class RunStarted(Event):
    """The first event of a run.

    Args:
        budget: the budget as text, such as "40% of the full run".
        dimension: what is counted against it; every `spent`, `limit` and cost is in this unit.
        seed: the seed of the run, None if none was set.
        units: in forward order.
        environment: versions and host.
        format_version: of the stream.
        started_at: ISO time, UTC.

    Example:
        >>> RunStarted(
        ...     budget="45 min",
        ...     dimension=Dimension.SECOND,
        ...     seed=1,
        ...     units=(),
        ...     environment=Environment.collect(device="cpu"),
        ... ).format_version
        2
    """

    kind: ClassVar[str] = "run_started"

    budget: str
    dimension: Dimension
    seed: int | None
    units: tuple[UnitInfo, ...]
    environment: Environment
    format_version: int = FORMAT_VERSION
    started_at: str = field(default_factory=lambda: datetime.now(UTC).isoformat())


@dataclass(frozen=True, kw_only=True)
class LoadMeasured(Event):
    """What every unit costs in one step when everything trains.

    Args:
        flops: unit name → FLOPs per step.
        seconds: unit name → seconds per step; empty until measured.
        saved_bytes: unit name → bytes autograd keeps for the backward pass.
        reference_cost: cost of the full run, in the dimension of the budget.

    Example:
        >>> load = LoadMeasured(
        ...     flops={"head": 6e6}, seconds={}, saved_bytes={"head": 512}, reference_cost=6e9
        ... )
        >>> load.kind, load.flops["head"]
        ('load_measured', 6000000.0)
    """

    kind: ClassVar[str] = "load_measured"

    flops: Mapping[str, float]
    seconds: Mapping[str, float]
    saved_bytes: Mapping[str, int]
    reference_cost: float


@dataclass(frozen=True, kw_only=True)
class CacheUsed(Event):
    """What the prefix cache did. Totals of the run, so a lost event loses nothing.

    Args:
        rows: samples that went through a cached prefix.
        rows_read: those that were read instead of computed.
        stored_rows: samples in the store now.
        ram_bytes: memory they take.
        disk_bytes: files they take.
        bytes_read: as stored.
        seconds_read: wall time of reading.
        flops_saved: what computing the samples that were read would have cost.
        audits: batches computed although they were stored, to compare.
        largest_error: of a stored row, relative to its largest entry.
        problems: what the store or the cache could not do, as text.

    Example:
        >>> used = CacheUsed(
        ...     rows=96, rows_read=64, stored_rows=32, ram_bytes=2**20, disk_bytes=0,
        ...     bytes_read=2**21, seconds_read=0.002, flops_saved=3e9, audits=1, largest_error=0.0,
        ... )
        >>> used.rows_read / used.rows, Event.from_json(used.to_json()) == used
        (0.6666666666666666, True)
    """

    kind: ClassVar[str] = "cache_used"

    rows: int
    rows_read: int
    stored_rows: int
    ram_bytes: int
    disk_bytes: int
    bytes_read: int
    seconds_read: float
    flops_saved: float
    audits: int
    largest_error: float
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ContributionMeasured(Event):
    """What training each unit for a step is worth.

    Args:
        values: unit name → estimated decrease of the loss per step.
        cost: FLOPs of the probes since the last ones, 0 where all was seen in training.
        task: name of the task.

    Example:
        >>> ContributionMeasured(values={"head": 0.02}, cost=3e6).values["head"]
        0.02
    """

    kind: ClassVar[str] = "contribution_measured"

    values: Mapping[str, float]
    cost: float
    task: str = "main"


@dataclass(frozen=True, kw_only=True)
class PlanDecided(Event):
    """A plan was decided on; it holds until the next one for the same task.

    Args:
        plan: the plan.
        spent: budget spent before it.
        remaining: budget left for it.
        changes: each change against the plan before, as text.
        reason: why this plan and not another.
        why: what gave occasion to decide, such as "epoch end".
        probe_flops: FLOPs of the probes since the decision before.
        costs: unit name → FLOPs per batch under the plan.

    Example:
        >>> plan = Plan({"layer.0": "frozen", "head": "full"})
        >>> decided = PlanDecided(plan=plan, spent=0.0, remaining=2e9)
        >>> print(Event.from_json(decided.to_json()).plan)
        frozen: layer.0 · full: head
    """

    kind: ClassVar[str] = "plan_decided"

    plan: Plan
    spent: float
    remaining: float
    changes: tuple[str, ...] = ()
    reason: str = ""
    why: str = ""
    probe_flops: float = 0.0
    costs: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class CostSpent(Event):
    """Where the account stands. All four are totals of the run, so a lost event loses no cost.

    Args:
        spent: budget spent.
        planned: what the plans in force predicted for the same steps.
        seconds: wall-clock seconds charged.
        flops: FLOPs charged.
        learning_rate: of the first param group, None if not recorded.

    Example:
        >>> CostSpent(step=10, spent=2.1, planned=2.0, seconds=2.1, flops=3e9).planned
        2.0
    """

    kind: ClassVar[str] = "cost_spent"

    spent: float
    planned: float
    seconds: float
    flops: float
    learning_rate: float | None = None


@dataclass(frozen=True, kw_only=True)
class Notice(Event):
    """Something a reader of the run should know, as text.

    Example:
        >>> Notice(text="cache refilled").kind
        'notice'
    """

    kind: ClassVar[str] = "notice"

    text: str


@dataclass(frozen=True, kw_only=True)
class RunEnded(Event):
    """The last event of a run: why it ended, what was spent, and the limit.

    Example:
        >>> RunEnded(why="budget spent", spent=7.9, limit=8.0).limit
        8.0
    """

    kind: ClassVar[str] = "run_ended"

    why: str
    spent: float
    limit: float
