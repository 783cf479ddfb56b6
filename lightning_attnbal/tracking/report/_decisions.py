"""Every decision in words."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from lightning_attnbal.tracking._events import PlanDecided
from lightning_attnbal.tracking.charts._stream import Stream

_MAX_DECISIONS, _MAX_CHANGES, _MAX_PLAN = 200, 1000, 400


@dataclass(frozen=True)
class Decision:
    """One decision, or several in a row that changed nothing.

    Args:
        title: when, and what came out.
        reason: why this plan and not another.
        plan: the plan in words.
        facts: cost, steps and price, in words.
        changes: what changed, and why.
        num_more: changes that were left out.
    """

    title: str
    reason: str
    plan: str
    facts: tuple[str, ...]
    changes: tuple[str, ...]
    num_more: int = 0


def decisions(stream: Stream) -> tuple[list[Decision], int]:
    """The decisions, oldest first, and how many in the middle were left out.

    Decisions that keep a task's levels are told with the one before them.
    """
    decided = stream.timed(PlanDecided)
    tasks = dict.fromkeys(event.plan.task for _, event in decided)
    groups = [
        group
        for task in tasks
        for group in _groups([pair for pair in decided if pair[1].plan.task == task])
    ]
    groups.sort(key=lambda group: group[0][1].sequence)
    half = _MAX_DECISIONS // 2
    kept = groups if len(groups) <= _MAX_DECISIONS else [*groups[:half], *groups[-half:]]
    room = max(3, min(40, _MAX_CHANGES // max(1, len(kept))))
    told = [_decision(stream, group, room, has_tasks=len(tasks) > 1) for group in kept]
    return told, len(groups) - len(kept)


Group = list[tuple[float, PlanDecided]]


def _groups(decided: Group) -> list[Group]:
    """Neighbours with the same levels together."""
    groups: list[Group] = [decided[:1]]
    for (_, before), after in pairwise(decided):
        if after[1].plan.same_levels(before.plan):
            groups[-1].append(after)
        else:
            groups.append([after])
    return groups


def _decision(stream: Stream, group: Group, room: int, *, has_tasks: bool) -> Decision:
    share, event = group[0]
    plan = event.plan
    parts = [f"Epoch {event.epoch}, step {event.step:,}", f"{share:.0%} of the budget spent"]
    parts += [f"task {plan.task}"] if has_tasks else []
    parts.append(f"{len(plan.trained)} of {len(plan)} units train")
    if len(group) > 1:
        parts.append(f"kept {len(group) - 1} times, until step {group[-1][1].step:,}")
    words = str(plan)
    return Decision(
        title=" · ".join(parts),
        reason=event.reason or event.why,
        plan=words if len(words) <= _MAX_PLAN else f"{words[:_MAX_PLAN]}…",
        facts=_facts(stream, event),
        changes=event.changes[:room],
        num_more=max(0, len(event.changes) - room),
    )


def _facts(stream: Stream, event: PlanDecided) -> tuple[str, ...]:
    plan, facts = event.plan, []
    if plan.cost_per_step > 0:
        facts.append(f"{stream.amount(plan.cost_per_step)} per step")
    if plan.num_steps is not None:
        facts.append(f"for {plan.num_steps:,} steps")
    if plan.shadow_price > 0:
        facts.append(f"shadow price λ = {plan.shadow_price:.3g} per unit of cost")
    if plan.forecast is not None:
        facts.append("forecast loss at the end {:.4g} ± {:.2g}".format(*plan.forecast))
    if event.probe_flops > 0:
        facts.append(f"probes cost {event.probe_flops:.3g} FLOP")
    return tuple(facts)
