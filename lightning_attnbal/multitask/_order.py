"""Shares of tasks as whole batches, and the order in which tasks take turns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from fractions import Fraction
from operator import itemgetter

import numpy as np
from scipy.optimize import linear_sum_assignment

from lightning_attnbal.core import check_integer, check_number


def apportion(
    shares: Mapping[str, float], num: int, *, leaves_none_out: bool = False
) -> dict[str, int]:
    """Whole batches for each task, by largest remainder.

    With s_i the shares and S their sum, task i gets its quota n · s_i / S rounded down, and the
    batches that are left go one each to the tasks with the largest remainders (the first given
    first, where remainders are equal). The counts sum to n exactly, and each is less than one away
    from its quota. Quotas are exact fractions, so no rounding error decides.

    Args:
        shares: by task, each in [0, inf), not all 0; they need not sum to 1. Share 0: no batch.
        num: batches to hand out, n in [0, inf).
        leaves_none_out: whether a task with a share that is rounded to no batch gets one after all,
            from the task with most; not where there are fewer batches than such tasks.

    Raises:
        TypeError: a share is not a number, or `num` is not an integer.
        ValueError: a share is negative or not finite, all are 0 (or there is none), or `num` is
            negative.

    Source:
        Hamilton's method; Balinski, Young, "Fair Representation", 1982, ch. 2.

    Example:
        >>> apportion({"rating": 0.5, "class": 0.3, "department": 0.2}, 9)
        {'rating': 4, 'class': 3, 'department': 2}
        >>> apportion({"large": 0.9, "small": 0.1}, 4, leaves_none_out=True)
        {'large': 3, 'small': 1}
    """
    check_integer("num", num, low=0)
    exact = {
        task: Fraction(check_number(f"shares[{task!r}]", share, low=0))
        for task, share in shares.items()
    }
    total = sum(exact.values())
    if total == 0:
        msg = f"Expected `shares` to have a sum in (0, inf), but got {dict(shares)}."
        raise ValueError(msg)
    quotas = {task: num * share / total for task, share in exact.items()}
    counts = {task: int(quota) for task, quota in quotas.items()}
    by_remainder = sorted(quotas, key=lambda task: counts[task] - quotas[task])
    for task in by_remainder[: num - sum(counts.values())]:
        counts[task] += 1
    wanted = [task for task, quota in quotas.items() if quota]
    if leaves_none_out and num >= len(wanted):
        for task in wanted:
            if not counts[task]:
                counts[task] = 1
                counts[max(counts, key=lambda name: counts[name])] -= 1
    return counts


def interleave(counts: Mapping[str, int]) -> tuple[str, ...]:
    """An order of the tasks without long runs.

    With c_i batches of task i, n = Σ c_i in all and T tasks that have any, x_i batches of task i
    among the first k are never further from the ideal than |x_i - k · c_i / n| ≤ 1 - 1 / (2T - 2),
    for every k: less than one batch. A task is entitled to its next batch at position k once it
    lags by k · c_i / n - x_i ≥ 1 / (2T - 2); among those, the one whose lag would be the first to
    pass the bound is served (the first given first, where that is at the same position). Integers
    only, so every rank finds the same order.

    Args:
        counts: batches by task, c_i in [0, inf).

    Raises:
        TypeError: a count is not an integer.
        ValueError: a count is negative.

    Source:
        Tijdeman, "The chairman assignment problem", Discrete Mathematics 32, 1980, theorem 1, whose
        deadlines we round down to whole positions (earliest deadline first then still meets all).

    Example:
        >>> interleave({"a": 4, "b": 2, "c": 1})
        ('a', 'b', 'a', 'a', 'c', 'a', 'b')
    """
    for task, count in counts.items():
        check_integer(f"counts[{task!r}]", count, low=0)
    active = {task: count for task, count in counts.items() if count}
    total, slack = sum(active.values()), 2 * max(len(active) - 1, 1)

    def window(task: str, batch: int) -> tuple[int, int]:
        """First and last position for a task's batch, which is numbered from 0."""
        divisor = slack * active[task]
        entitled = -(-(batch * slack + 1) * total // divisor)
        return entitled, (batch * slack + slack - 1) * total // divisor

    served = dict.fromkeys(active, 0)
    windows = {task: window(task, 0) for task in active}
    order: list[str] = []
    for position in range(1, total + 1):
        entitled = [(last, task) for task, (first, last) in windows.items() if first <= position]
        _, task = min(entitled, key=itemgetter(0))
        served[task] += 1
        windows[task] = window(task, served[task])
        order.append(task)
    return tuple(order)


def introduced(order: Sequence[str], by: int) -> tuple[str, ...]:
    """The order with every task's first turn among the first `by`; nothing moves if it is there.

    The first turns of tasks that come later are moved forward, to the end of that stretch.

    Args:
        order: task by turn.
        by: turns, in [0, inf); as many as there are tasks, if that is more.

    Example:
        >>> introduced("aaaaaabaac", by=4)
        ('a', 'a', 'b', 'c', 'a', 'a', 'a', 'a', 'a', 'a')
    """
    first = {task: order.index(task) for task in sorted(set(order), key=order.index)}
    by = max(check_integer("by", by, low=0), len(first))
    start, late = by, [task for task, place in first.items() if place >= by]
    while len(late) > by - start:  # what moves forward may push others out
        start = by - len(late)
        late = [task for task, place in first.items() if place >= start]
    moved = {first[task] for task in late}
    rest = [task for place, task in enumerate(order) if place not in moved]
    return (*rest[:start], *late, *rest[start:])


def deal(order: Sequence[str], num: int) -> tuple[tuple[str, ...], ...]:
    """An order of turns in steps of `num` ranks: which rank serves which task, step by step.

    Step k has turns k · num to (k + 1) · num - 1. Among its ranks they go such that each rank has
    had each task about as often as the others: with c_rt the turns of task t that rank r had, the
    assignment with the least Σ_r c_rt(r). So every rank gets through its part of each task's data
    at the same pace. Every rank finds the same.

    Args:
        order: task by turn; what is left after the last whole step has no place.
        num: ranks, in [1, inf).

    Returns:
        Per step, the task of each rank.

    Raises:
        ValueError: `num` is out of range.

    Source:
        Kuhn, "The Hungarian method for the assignment problem", 1955 (as solved by SciPy).

    Example:
        >>> deal("ababab", 2)
        (('a', 'b'), ('b', 'a'), ('a', 'b'))
    """
    if check_integer("num", num, low=1) == 1:
        return tuple((task,) for task in order)
    had = [Counter[str]() for _ in range(num)]
    dealt = []
    for start in range(0, len(order) - num + 1, num):
        turns = order[start : start + num]
        _, places = linear_sum_assignment(np.array([[c[task] for task in turns] for c in had]))
        step = tuple(turns[place] for place in places)
        for counter, task in zip(had, step, strict=True):
            counter[task] += 1
        dealt.append(step)
    return tuple(dealt)
