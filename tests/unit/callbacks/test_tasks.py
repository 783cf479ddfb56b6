"""Settings, accounts and exchange rates of tasks, without a Trainer."""

import math

import pytest
import torch

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
        ({}, 0.25, (0.125, 0.5)),
        ({}, 0.8, (0.4, 1.0)),
        ({"reach": 1.0}, 0.3, (0.3, 0.3)),
        ({"floors": {"a": 0.4}}, 0.1, (0.2, 0.4)),
        ({"caps": {"a": 0.05}}, 0.3, (0.05, 0.05)),
    ],
    ids=["reach", "large task", "as the data", "floor above reach", "cap below reach"],
)
def test_bounds_of_a_share(settings, data, bounds):
    assert TaskSettings(**settings).bounds("a", data) == pytest.approx(bounds)


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
