"""The account of a run, tested without a Trainer."""

from __future__ import annotations

import math

import pytest

from lightning_attnbal.callbacks._ledger import Ledger
from lightning_attnbal.core import Budget


def ledger(
    budget: str, full_batches: int | None = 10, batches: int = 0, cost: float = 1.0
) -> Ledger:
    account = Ledger(budget=Budget.parse(budget), full_batches=full_batches)
    for _ in range(batches):
        account.charge(flops=cost, full_flops=4.0)
    return account


def test_reference_follows_the_mean_full_cost_of_the_batches_seen():
    account = ledger("50%", full_batches=10)
    assert account.reference is None
    assert account.limit is None
    account.charge(flops=1.0, full_flops=2.0)
    account.charge(flops=1.0, full_flops=4.0)
    assert account.reference.amount == 30.0
    assert account.limit.amount == 15.0
    assert account.remaining == 13.0


@pytest.mark.parametrize(
    ("cost_per_batch", "expected"),
    [(4.0, 2 / 20), (1.0, 2 / 10), (0.0, 2 / 2)],
    ids=["budget ends it", "epochs end it", "free from now on"],
)
def test_progress_is_spent_over_what_will_have_been_spent(cost_per_batch, expected):
    assert ledger("50%", batches=2).progress(cost_per_batch) == pytest.approx(expected)


def test_progress_of_an_unrestricted_run_counts_batches():
    assert ledger("100%", batches=5, cost=3.0).progress(1.0) == 0.5


def test_endless_run_ends_when_the_limit_does():
    account = ledger("20 FLOP", full_batches=None, batches=5)
    assert account.remaining_batches is None
    assert account.reference is None
    assert account.progress(1.0) == 0.25


def test_reserve_is_kept_for_the_end():
    account = Ledger(budget=Budget.parse("100 s"), full_batches=None, seconds=40.0, reserve=20.0)
    assert account.remaining == 40.0
    assert account.progress(1.0) == 0.5
    assert account.can_afford(40.0)
    assert not account.can_afford(41.0)


def test_reference_of_a_time_budget_needs_a_forecast():
    account = Ledger(budget=Budget.parse("100 s"), full_batches=30)
    assert account.reference is None
    account.full_seconds_per_batch = 2.0
    assert str(account.reference) == "1 min"


def test_rounding_does_not_forbid_the_last_step():
    account = ledger("50%", full_batches=30, batches=3, cost=0.1)
    account.flops = account.limit.amount - 0.1 - 1e-12
    assert account.can_afford(0.1)


def test_seconds_left_follows_the_pace_so_far():
    account = ledger("50%", batches=2, cost=4.0)
    account.seconds = 10.0
    assert account.seconds_left(4.0) == pytest.approx(15.0)
    assert math.isnan(ledger("50%").seconds_left(1.0))


def test_state_round_trip_keeps_the_account_and_not_the_allowance():
    account = ledger("50%", batches=3)
    other = Ledger(budget=Budget.parse("70%"), full_batches=20)
    other.load_state_dict(account.state_dict())
    assert other.flops == account.flops
    assert other.batches == 3
    assert str(other.budget.limit) == "70%"
    assert other.full_batches == 20
