"""The factor of a plan, and that nothing but the optimizer step ever sees it."""

from __future__ import annotations

import math

import pytest
import torch
from torch.optim import lr_scheduler as schedulers

from lightning_attnbal.core import Plan, Unit, UnitKind
from lightning_attnbal.trainer import DepthRate, PlanRate


def units_of(**kinds: UnitKind) -> list[Unit]:
    return [
        Unit(name, i, kind, (name,), (f"{name}.weight",), 1)
        for i, (name, kind) in enumerate(kinds.items())
    ]


def stack(num_blocks: int) -> list[Unit]:
    blocks = {f"layer{i}": UnitKind.BLOCK for i in range(num_blocks)}
    return units_of(embeddings=UnitKind.EMBEDDING, **blocks, head=UnitKind.HEAD)


def top(units: list[Unit], num_trained: int) -> Plan:
    first = len(units) - num_trained
    return Plan({u.name: "full" if i >= first else "frozen" for i, u in enumerate(units)})


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("trained", [1, 2, 3, 6])
def test_the_factor_follows_the_share_of_blocks_that_train(power, trained):
    units = stack(6)
    factor = DepthRate(power=power, most=100.0)(top(units, trained + 1), units)
    assert factor == pytest.approx((6 / trained) ** power)


def test_everything_trained_is_exactly_one():
    units = stack(7)
    assert DepthRate()(top(units, len(units)), units) == 1.0
    assert DepthRate()(top(units, len(units) - 1), units) == 1.0  # embeddings are no block


def test_a_head_alone_counts_as_half_a_block():
    units = stack(4)
    assert DepthRate(power=1.0, most=100.0)(top(units, 1), units) == 8.0


@pytest.mark.parametrize("most", [1.0, 3.0])
def test_the_factor_is_limited(most):
    units = stack(48)
    assert DepthRate(power=1.0, most=most)(top(units, 1), units) == most


def test_units_count_alike_where_a_model_has_no_blocks():
    units = units_of(a=UnitKind.OTHER, b=UnitKind.OTHER, c=UnitKind.OTHER, d=UnitKind.HEAD)
    assert DepthRate(power=1.0)(top(units, 2), units) == 2.0
    assert DepthRate()(top(units, 1), []) == 1.0


def test_adapters_count_as_trained():
    units = stack(2)
    plan = Plan({"embeddings": "frozen", "layer0": "lora4", "layer1": "full", "head": "full"})
    assert DepthRate()(plan, units) == 1.0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"power": -0.5}, r"`power` to be in \[0, inf\), but got -0.5"),
        ({"most": 0.5}, r"`most` to be in \[1, inf\), but got 0.5"),
        ({"most": math.inf}, r"`most` to be in \[1, inf\), but got inf"),
    ],
)
def test_wrong_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        DepthRate(**settings)


def parameter() -> torch.Tensor:
    return torch.zeros(1, requires_grad=True)


def two_groups() -> torch.optim.Optimizer:
    return torch.optim.SGD([{"params": parameter(), "lr": 0.1}, {"params": parameter(), "lr": 0.7}])


def lrs(optimizer: torch.optim.Optimizer) -> list[float]:
    return [float(group["lr"]) for group in optimizer.param_groups]


def test_every_group_is_scaled_and_gets_its_very_number_back():
    one, other = two_groups(), two_groups()
    rate = PlanRate([one, other])
    rate.begin(3.0)
    assert lrs(one) == lrs(other) == [0.1 * 3.0, 0.7 * 3.0]
    rate.end()
    rate.end()
    assert lrs(one) == lrs(other) == [0.1, 0.7]


def test_beginning_twice_does_not_compound():
    optimizer = two_groups()
    rate = PlanRate([optimizer])
    rate.begin(3.0)
    rate.begin(2.0)
    assert lrs(optimizer) == [0.1 * 2.0, 0.7 * 2.0]
    rate.end()
    assert lrs(optimizer) == [0.1, 0.7]


def test_a_factor_of_one_touches_nothing():
    optimizer = two_groups()
    rates = [group["lr"] for group in optimizer.param_groups]
    PlanRate([optimizer]).begin(1.0)
    assert all(g["lr"] is r for g, r in zip(optimizer.param_groups, rates, strict=True))


def test_a_tensor_keeps_its_identity_and_a_number_its_bits():
    lr, number = torch.tensor(0.3, dtype=torch.float64), 0.1 + 0.2
    optimizer = torch.optim.Adam(
        [{"params": parameter(), "lr": lr}, {"params": parameter(), "lr": number}]
    )
    held = optimizer.param_groups[0]["lr"]
    rate = PlanRate([optimizer])
    for factor in (1 / 3, 7.0):
        rate.begin(factor)
        assert held.item() == pytest.approx(0.3 * factor)
        rate.end()
        assert optimizer.param_groups[0]["lr"] is held
        assert held.item() == torch.tensor(0.3, dtype=torch.float64).item()
        assert optimizer.param_groups[1]["lr"] is number


def test_a_step_is_taken_at_the_factor_and_ends_it():
    weight = torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.SGD([weight], lr=0.5)
    rate = PlanRate([optimizer])

    def closure():
        weight.grad = torch.ones(1)
        rate.begin(4.0)  # as Lightning does, within the closure

    optimizer.step(closure)
    assert weight.item() == -2.0
    assert lrs(optimizer) == [0.5]


def test_a_step_that_fails_is_ended_by_hand():
    optimizer = two_groups()
    rate = PlanRate([optimizer])

    def closure():
        rate.begin(4.0)
        raise KeyError("bad batch")

    with pytest.raises(KeyError, match="bad batch"):
        optimizer.step(closure)
    rate.end()
    assert lrs(optimizer) == [0.1, 0.7]


def test_closing_lets_go_of_the_optimizer():
    optimizer = two_groups()
    rate = PlanRate([optimizer])
    rate.begin(4.0)
    rate.close()
    rate.close()
    assert lrs(optimizer) == [0.1, 0.7]
    rate.begin(4.0)
    optimizer.step()
    assert lrs(optimizer) == [0.1 * 4.0, 0.7 * 4.0]  # nothing ends it any more


MAKERS = {
    "StepLR": lambda o: schedulers.StepLR(o, step_size=2, gamma=0.5),
    "ExponentialLR": lambda o: schedulers.ExponentialLR(o, gamma=0.9),
    "OneCycleLR": lambda o: schedulers.OneCycleLR(o, max_lr=0.5, total_steps=12),
    "LambdaLR": lambda o: schedulers.LambdaLR(o, lambda step: 1 / (1 + step)),
    "CosineAnnealingLR": lambda o: schedulers.CosineAnnealingLR(o, T_max=12),
}


@pytest.mark.parametrize("maker", MAKERS.values(), ids=MAKERS)
def test_schedulers_that_step_right_after_the_optimizer_never_see_it(maker):
    plain, scaled = (torch.optim.SGD([parameter()], lr=0.3, momentum=0.9) for _ in range(2))
    expected, own = maker(plain), maker(scaled)
    rate = PlanRate([scaled])
    for _ in range(10):
        plain.step()
        rate.begin(5.0)
        scaled.step()
        expected.step()
        own.step()
        rate.end()
        assert lrs(scaled) == lrs(plain)
        assert own.get_last_lr() == expected.get_last_lr()
