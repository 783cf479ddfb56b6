"""Base learning rates are kept, scaled, restored, and survive a resume without compounding."""

import pytest
import torch

from lightning_attnbal.trainer import BudgetLR, ConstantSchedule, LinearSchedule


def two_groups(kind=torch.optim.SGD, **kwargs):
    params = [torch.zeros(2, requires_grad=True) for _ in range(2)]
    return kind([{"params": params[0], "lr": 0.1}, {"params": params[1], "lr": 0.8}], **kwargs)


def lrs(*optimizers):
    return [float(group["lr"]) for o in optimizers for group in o.param_groups]


@pytest.mark.parametrize(
    "kind", [torch.optim.SGD, torch.optim.AdamW, torch.optim.Adagrad, torch.optim.RMSprop]
)
@pytest.mark.parametrize(
    ("progress", "factor"), [(0.0, 1.0), (0.25, 0.75), (1.0, 0.0), (1.5, 0.0)], ids=str
)
def test_each_group_is_scaled_from_its_own_base(kind, progress, factor):
    optimizer = two_groups(kind)
    BudgetLR([optimizer], LinearSchedule()).set(progress)
    assert lrs(optimizer) == [0.1 * factor, 0.8 * factor]


def test_setting_twice_does_not_compound():
    first, second = two_groups(), two_groups(torch.optim.Adam)
    learning_rate = BudgetLR([first, second], LinearSchedule())
    for progress in (0.5, 0.5, 0.25):
        learning_rate.set(progress)
    assert lrs(first, second) == [0.1 * 0.75, 0.8 * 0.75] * 2


def test_constant_leaves_the_very_same_number():
    optimizer = two_groups()
    BudgetLR([optimizer], ConstantSchedule()).set(0.3)
    assert lrs(optimizer) == [0.1, 0.8]


def test_restore():
    optimizer = two_groups()
    learning_rate = BudgetLR([optimizer], LinearSchedule())
    learning_rate.set(1.0)
    learning_rate.restore()
    assert lrs(optimizer) == [0.1, 0.8]


def test_a_tensor_is_changed_in_place():
    lr = torch.tensor(0.5)
    optimizer = torch.optim.Adam([torch.zeros(2, requires_grad=True)], lr=lr)
    learning_rate = BudgetLR([optimizer], LinearSchedule())
    learning_rate.set(0.5)
    held = optimizer.param_groups[0]["lr"]
    assert held is lr
    assert held.item() == 0.25
    learning_rate.restore()
    assert held.item() == 0.5


def test_resume_takes_the_saved_base_not_the_scheduled_rate():
    optimizer = two_groups()
    learning_rate = BudgetLR([optimizer], LinearSchedule())
    learning_rate.set(0.5)
    saved, optimizer_state = learning_rate.state_dict(), optimizer.state_dict()

    resumed = two_groups()
    resumed.load_state_dict(optimizer_state)
    again = BudgetLR([resumed], LinearSchedule())
    again.load_state_dict(saved)
    again.set(0.75)
    assert lrs(resumed) == [0.1 * 0.25, 0.8 * 0.25]
    again.restore()
    assert lrs(resumed) == [0.1, 0.8]


def test_state_is_a_copy():
    learning_rate = BudgetLR([two_groups()], LinearSchedule())
    learning_rate.state_dict()["base_lrs"][0][0] = 99.0
    assert learning_rate.state_dict() == {"base_lrs": [[0.1, 0.8]]}


def test_refuses_a_group_added_later():
    optimizer = two_groups()
    learning_rate = BudgetLR([optimizer], LinearSchedule())
    optimizer.add_param_group({"params": [torch.zeros(1, requires_grad=True)]})
    with pytest.raises(ValueError, match=r"Expected \[2\] param groups .* but got \[3\]"):
        learning_rate.set(0.5)


def test_refuses_the_state_of_other_groups():
    learning_rate = BudgetLR([two_groups()], LinearSchedule())
    with pytest.raises(ValueError, match=r"Expected \[2\] param groups .* but got \[1\]"):
        learning_rate.load_state_dict({"base_lrs": [[0.1]]})
