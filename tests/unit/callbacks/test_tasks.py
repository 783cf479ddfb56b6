"""Settings, accounts and exchange rates of tasks, without a Trainer."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_attnbal.callbacks import TaskSettings
from lightning_attnbal.callbacks._exchange import exchange_rate
from lightning_attnbal.callbacks._task_account import TaskAccount


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"weights": {"a": 0.0}}, r"weights\['a'\]"),
        ({"floors": {"a": 1.0}}, r"floors\['a'\]"),
        ({"caps": {"a": 1.5}}, r"caps\['a'\]"),
        ({"reach": 0.5}, "reach"),
        ({"objective": "best"}, "objective"),
        ({"metrics": {"a": ("val/f1", "up")}}, r"metrics\['a'\]"),
        ({"epoch_batches": 0}, "epoch_batches"),
        ({"hysteresis": -1.0}, "hysteresis"),
        ({"grid": 1}, "grid"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_settings_are_checked(settings, name):
    with pytest.raises(ValueError, match=f"Expected `{name}`"):
        TaskSettings(**settings)


@pytest.mark.parametrize(
    ("settings", "data", "bounds"),
    [
        ({}, 0.25, (0.15, 0.5)),
        ({}, 0.8, (0.4, 1.0)),
        ({}, 0.01, (0.05, 0.05)),
        ({"reach": 1.0}, 1 / 3, (1 / 3, 1 / 3)),
        ({"reach": 1.05}, 1 / 3, (0.35, 0.35)),
        ({"reach": 1.1}, 0.48, (0.45, 0.5)),
        ({"floors": {"a": 0.4}}, 0.1, (0.2, 0.4)),
        ({"caps": {"a": 0.03}}, 0.3, (0.03, 0.03)),
    ],
    ids=[
        "reach",
        "large task",
        "tiny task",
        "as the data",
        "nothing on the grid",
        "data beside the grid",
        "floor above reach",
        "cap below reach",
    ],
)
def test_bounds_of_a_share(settings, data, bounds):
    found = TaskSettings(**settings).bounds({"a": data, "b": 1 - data})["a"]
    assert found == pytest.approx(bounds)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.integers(1, 10_000), min_size=1, max_size=20),
    st.floats(1.0, 5.0),
    st.integers(20, 200),
)
def test_reach_alone_always_leaves_shares(lengths, reach, grid):
    data = {str(i): n / sum(lengths) for i, n in enumerate(lengths)}
    wanted = TaskSettings(reach=reach, grid=grid)
    wanted.check_tasks(data)
    lows, highs = zip(*wanted.bounds(data).values(), strict=True)
    assert min(lows) > 0
    assert sum(lows) - 1e-9 <= 1 <= sum(highs) + 1e-9


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"grid": 2}, r"`grid` to be in \[3, inf\)"),
        ({"reach": 1.0, "caps": {"a": 0.1}}, "at least 15 and at most 15 such steps"),
        ({"floors": dict.fromkeys("abc", 0.33)}, "at least 21 and at most"),
    ],
    ids=["more tasks than steps", "cap beside reach", "floors beside the grid"],
)
def test_bounds_that_leave_no_shares_are_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        TaskSettings(**settings).check_tasks(dict.fromkeys("abc", 1 / 3))


def test_exchange_rate_is_the_slope_towards_better():
    assert exchange_rate([2.0, 1.0, 0.0], [0.1, 0.5, 0.9], "max") == pytest.approx(0.4)
    assert exchange_rate([2.0, 1.0, 0.0], [0.9, 0.5, 0.1], "min") == pytest.approx(0.4)


@pytest.mark.parametrize(
    ("losses", "scores"),
    [
        ([1.0, 0.5], [0.1, 0.2]),
        ([1.0, 1.0, 1.0], [0.1, 0.2, 0.3]),
        ([1.0, 0.5, 0.2], [0.3, 0.2, 0.1]),
        ([1.0, math.nan, 0.2], [0.1, 0.2, 0.3]),
    ],
    ids=["two points", "one loss", "worse as the loss fell", "unknown loss"],
)
def test_no_exchange_rate_without_evidence(losses, scores):
    assert exchange_rate(losses, scores, "max") is None


def test_reference_mix_counts_the_tasks_seen():
    account = TaskAccount(reference={"a": 0.9, "b": 0.1})
    account.serve("a", 2.0)
    account.serve("a", 4.0)
    assert account.full_flops_per_batch == pytest.approx(3.0)
    account.serve("b", 30.0)
    assert account.full_flops_per_batch == pytest.approx(0.9 * 3.0 + 0.1 * 30.0)


def test_account_restores():
    account = TaskAccount(reference={"a": 1.0})
    account.serve("a", 2.0)
    account.spend("a", 1.5, torch.tensor(0.75))
    other = TaskAccount()
    other.load_state_dict(account.state_dict())
    assert other == account
    assert other.losses == {"a": 0.75}
