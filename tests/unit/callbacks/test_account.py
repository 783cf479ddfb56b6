"""What a cached prefix is charged, sample by sample."""

import io
import random

import pytest
import torch

from lightning_attnbal.callbacks._account import Account
from lightning_attnbal.core import Plan

LOW, BOTH = ("low",), ("low", "mid")
TRAIN_TOP = Plan({"low": "cached", "mid": "cached", "top": "full"})
TRAIN_MID = Plan({"low": "cached", "mid": "full", "top": "full"})


def keys(*numbers):
    return tuple(number.to_bytes(16, "big") for number in numbers)


def charged(account, names, *calls):
    charge = account.charge(names, [keys(*call) for call in calls])
    for call in calls:
        account.pay(names, keys(*call))
    return charge


def test_a_sample_is_run_once_and_read_from_then_on():
    account = Account()
    assert charged(account, BOTH, (1, 2)).run == {"low": 1.0, "mid": 1.0}
    second = charged(account, BOTH, (2, 3, 1, 4))
    assert second.run == {"low": 0.5, "mid": 0.5}
    assert second.read == 0.5
    assert charged(account, BOTH, (4, 3)).run == {"low": 0.0, "mid": 0.0}


def test_what_was_not_stored_is_charged_again():
    account = Account()
    account.charge(LOW, [keys(1, 2)])
    account.pay(LOW, keys(1))
    assert account.charge(LOW, [keys(1, 2)]).run == {"low": 0.5}


def test_several_calls_of_a_step_share_it():
    account = Account()
    charged(account, LOW, (1, 2, 3))
    assert charged(account, LOW, (1, 2, 3), (4,)).run == {"low": 0.25}


def test_a_deeper_prefix_starts_where_a_shallower_one_ends():
    account = Account()
    charged(account, LOW, (1, 2, 3))
    assert charged(account, BOTH, (1, 2)).run == {"low": 0.0, "mid": 1.0}
    assert charged(account, BOTH, (3, 4)).run == {"low": 0.5, "mid": 1.0}


def test_missing_samples_of_a_mixed_batch_start_there_too():
    account = Account()
    charged(account, LOW, (1, 2, 3))
    charged(account, BOTH, (1,))
    assert charged(account, BOTH, (1, 2)).run == {"low": 0.0, "mid": 0.5}
    assert charged(account, BOTH, (2, 3, 4)).run == {"low": 1 / 3, "mid": 2 / 3}
    assert account.num_paid(LOW, beyond=BOTH) == 0
    assert account.num_paid(BOTH, beyond=LOW) == 1


def test_training_a_unit_makes_prefixes_with_it_start_anew():
    account = Account()
    charged(account, LOW, (1,))
    charged(account, BOTH, (1,))
    account.train(TRAIN_TOP)
    assert (account.num_paid(LOW), account.num_paid(BOTH)) == (1, 1)
    account.train(TRAIN_MID)
    assert (account.num_paid(LOW), account.num_paid(BOTH)) == (1, 0)


def test_comparisons_are_charged_once_per_prefix():
    account = Account()
    assert charged(account, LOW, (1,)).proofs == 0
    assert account.proofs_left(LOW) > 0
    assert charged(account, LOW, (1,)).proofs > 0
    assert account.proofs_left(LOW) == charged(account, LOW, (1,)).proofs == 0


@pytest.mark.parametrize("seed", range(5))
def test_a_restored_account_charges_what_the_first_would(seed):
    drawn = random.Random(seed)
    steps = [(drawn.choice([LOW, BOTH]), [drawn.sample(range(40), 4)]) for _ in range(40)]
    account = Account()
    for names, calls in steps[:20]:
        charged(account, names, *calls)
    file = io.BytesIO()
    torch.save(account.state_dict(), file)
    file.seek(0)
    resumed = Account()
    resumed.load_state_dict(torch.load(file, weights_only=True))
    for names, calls in steps[20:]:
        assert charged(resumed, names, *calls) == charged(account, names, *calls)
