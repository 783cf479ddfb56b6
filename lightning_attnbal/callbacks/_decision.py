"""A decision, and the account of a run in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lightning_attnbal.callbacks._ledger import Ledger
from lightning_attnbal.core import Change, Plan


@dataclass(frozen=True, slots=True)
class Decision:
    """One solved allocation.

    Args:
        plan: what was decided.
        step: optimizer steps taken when it was.
        epoch: epoch it was taken in, zero-based.
        spent: spent by then, in the budget's dimension.
        remaining: left by then.
        why: what gave occasion to decide.
        probe_flops: FLOPs of the probes since the decision before.
    """

    plan: Plan
    step: int
    epoch: int
    spent: float
    remaining: float
    why: str
    probe_flops: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Plain data that JSON can hold."""
        return {
            "plan": self.plan.to_dict(),
            "step": self.step,
            "epoch": self.epoch,
            "spent": self.spent,
            "remaining": self.remaining,
            "why": self.why,
            "probe_flops": self.probe_flops,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Decision:
        """Restore what `to_dict` gave."""
        return cls(**{**data, "plan": Plan.from_dict(data["plan"])})


def changes(history: Sequence[Decision]) -> tuple[Change, ...]:
    """What the last decision changed, for its task."""
    if not history:
        return ()
    last = history[-1].plan
    before = (d.plan for d in reversed(history[:-1]) if d.plan.task == last.task)
    return last.diff(next(before, None))


def explain(ledger: Ledger, history: Sequence[Decision], finished: str) -> str:
    """Budget and spending, every decision with what it changed, and each unit's reason."""
    lines = [f"Budget: {ledger.budget}."]
    if ledger.reference is not None:
        lines.append(f"The full run would cost {ledger.reference}.")
    if ledger.limit is not None:
        lines.append(
            f"Spent {ledger.spent} of {ledger.limit} ({ledger.spent / ledger.limit:.1%}), "
            f"{ledger.batches} batches in {ledger.seconds:.0f} s."
        )
    previous: dict[str, Plan] = {}
    is_one = len({decision.plan.task for decision in history}) < 2
    for decision in history:
        whose = "" if is_one else f", task {decision.plan.task}"
        lines.append(f"Step {decision.step} (epoch {decision.epoch}){whose}, {decision.why}:")
        changed = decision.plan.diff(previous.get(decision.plan.task))
        lines.extend(f"  {change}" for change in changed)
        if not changed:
            lines.append(f"  unchanged: {decision.plan}")
        previous[decision.plan.task] = decision.plan
    if finished:
        lines.append(f"Ended: {finished}.")
    return "\n".join(lines)
