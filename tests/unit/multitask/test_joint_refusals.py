"""What the joint allocation refuses, and how it says so."""

from dataclasses import replace

import numpy as np
import pytest

from lightning_attnbal.allocate import InfeasibleMemoryError, Limits
from lightning_attnbal.core import CACHED, FROZEN, FULL, Menu, Option, Problem
from lightning_attnbal.multitask import PlanGain, TaskTerms, allocate_tasks
from tests.unit.multitask.joint_cases import stack


class Unsure(PlanGain):
    """Does not know the last plan."""

    def __call__(self, levels, steps):
        return 1.0 * steps

    def table(self, plans, values, steps):
        return np.outer([*values[:-1], np.nan], steps)


ONE = stack("one")
REFUSED = {
    "no tasks": ([], {}, "one or more tasks of different names"),
    "a name twice": ([ONE, ONE], {}, "one or more tasks of different names"),
    "different units": ([ONE, stack("two", num_units=3)], {}, "same units in the same order"),
    "floors": ([ONE, stack("two")], {"floor": 0.6}, "leave shares in steps of 1/20"),
    "caps": ([ONE, stack("two")], {"cap": 0.4}, "leave shares in steps of 1/20"),
    "gain": ([ONE], {"gain": lambda levels, steps: steps[:1]}, "`gain` of task 'one' to answer"),
    "gains": ([ONE], {"gain": Unsure()}, "`gain` of task 'one' to answer"),
    "nan": ([ONE], {"gain": lambda levels, steps: np.nan * steps}, "`gain` of task 'one'"),
}


@pytest.mark.parametrize(("problems", "more", "message"), REFUSED.values(), ids=REFUSED)
def test_wrong_terms_are_refused(problems, more, message):
    terms = [TaskTerms(problem=problem, **more) for problem in problems]
    with pytest.raises(ValueError, match=message):
        allocate_tasks(terms, Limits(remaining=100, max_steps=9))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"weight": 0}, "`weight` to be in"),
        ({"floor": 0.5, "cap": 0.2}, "`floor` to be in"),
        ({"cap": 1.2}, "`cap` to be in"),
        ({"epoch_steps": 0}, "`epoch_steps` to be in"),
        ({"problem": replace(ONE, share=0.5)}, "`share` of the problem of task 'one' to be 1"),
    ],
)
def test_wrong_numbers_are_refused(more, message):
    with pytest.raises(ValueError, match=message):
        TaskTerms(**{"problem": ONE, **more})


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"objective": "mean"}, "one of 'sum', 'worst'"),
        ({"grid": 0}, "`grid` to be in"),
        ({"resolution": 1}, "`resolution` to be in"),
        ({"totals": [0]}, "`totals` to be in"),
    ],
)
def test_wrong_settings_are_refused(more, message):
    with pytest.raises(ValueError, match=message):
        allocate_tasks([TaskTerms(problem=ONE)], Limits(remaining=100), **more)


def test_tasks_without_a_common_prefix_are_refused():
    top = Menu("high", (Option(level=FULL, cost=1, value=1),))
    menus = [Menu("low", (Option(level=level, cost=1),)) for level in (CACHED, FROZEN)]
    terms = [
        TaskTerms(problem=Problem((menu, top), task=name), floor=0.5)
        for name, menu in zip("ab", menus, strict=True)
    ]
    with pytest.raises(ValueError, match="plans with the same units cached"):
        allocate_tasks(terms, Limits(remaining=100))


def test_too_little_memory_is_refused():
    with pytest.raises(InfeasibleMemoryError, match="`memory` to be at least"):
        allocate_tasks([TaskTerms(problem=ONE)], Limits(remaining=100, memory=1))


def test_free_plans_need_an_end():
    free = Problem((Menu("only", (Option(level=FULL, cost=0, value=1),)),))
    with pytest.raises(ValueError, match="`max_steps` where no plan costs anything"):
        allocate_tasks([TaskTerms(problem=free)], Limits(remaining=1))
    assert allocate_tasks([TaskTerms(problem=free)], Limits(remaining=1, max_steps=5)).value == 5
