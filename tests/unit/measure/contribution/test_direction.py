"""The direction equals what the real optimizer does, and reading it changes nothing."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.optim import SGD, Adam, AdamW

from lightning_attnbal.measure import (
    geometry,
    joint_directions,
    momentum_gain,
    update_direction,
)

LR = 0.1


def taken(optimizer, weight, gradient):
    """−Δ / lr of one real step."""
    before = weight.detach().clone()
    weight.grad = gradient.clone()
    optimizer.step()
    return (before - weight.detach()) / LR


def parameter():
    return nn.Parameter(torch.randn(3, 4, dtype=torch.float64))


def gradient():
    return torch.randn(3, 4, dtype=torch.float64)


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({}, id="plain"),
        pytest.param({"momentum": 0.9}, id="momentum"),
        pytest.param({"momentum": 0.9, "dampening": 0.5}, id="dampening"),
        pytest.param({"maximize": True}, id="maximize"),
        pytest.param({"foreach": True, "momentum": 0.9}, id="foreach"),
        pytest.param({"fused": True}, id="fused"),
    ],
)
def test_sgd_first_step(settings):
    weight, g = parameter(), gradient()
    optimizer = SGD([weight], lr=LR, **settings)
    torch.testing.assert_close(update_direction(optimizer, weight, g), taken(optimizer, weight, g))


@pytest.mark.parametrize("kind", [Adam, AdamW])
@pytest.mark.parametrize("num_before", [0, 1, 5])
@pytest.mark.parametrize(
    "settings", [{}, {"amsgrad": True}, {"maximize": True}], ids=["plain", "amsgrad", "maximize"]
)
def test_as_a_step_it_is_the_one_that_adam_without_momentum_takes(kind, num_before, settings):
    weight = parameter()
    optimizer = kind([weight], lr=LR, betas=(0.0, 0.999), weight_decay=0.0, **settings)
    for n in range(num_before):
        taken(optimizer, weight, gradient() / (n + 1))
    g = gradient()
    direction = update_direction(optimizer, weight, g, as_step=True)
    torch.testing.assert_close(direction, taken(optimizer, weight, g))


def test_as_a_step_it_is_bounded_where_all_gradients_before_were_zero():
    weight = parameter()
    optimizer = Adam([weight], lr=LR)
    for _ in range(4):
        taken(optimizer, weight, torch.zeros_like(weight))
    g = gradient()
    assert update_direction(optimizer, weight, g).abs().max() > 1e6
    assert update_direction(optimizer, weight, g, as_step=True).abs().max() <= 5**0.5


@pytest.mark.parametrize("nesterov", [False, True])
def test_momentum_gain_is_the_sum_of_all_steps_for_one_gradient(nesterov):
    weight, g = parameter(), gradient()
    dampening = 0.0 if nesterov else 0.25
    optimizer = SGD([weight], lr=LR, momentum=0.8, dampening=dampening, nesterov=nesterov)
    taken(optimizer, weight, torch.zeros_like(g))  # the buffer's first value isn't dampened
    direction = momentum_gain(optimizer, weight) * update_direction(optimizer, weight, g)
    steps = taken(optimizer, weight, g)
    steps += sum(taken(optimizer, weight, torch.zeros_like(g)) for _ in range(200))
    torch.testing.assert_close(direction, steps)


@pytest.mark.parametrize("optimizer", [Adam, AdamW, SGD], ids=lambda kind: kind.__name__)
def test_gain_is_one_without_momentum(optimizer):
    weight = parameter()
    assert momentum_gain(optimizer([weight], lr=LR), weight) == 1.0


ADAM = [
    pytest.param({}, id="plain"),
    pytest.param({"amsgrad": True}, id="amsgrad"),
    pytest.param({"maximize": True}, id="maximize"),
    pytest.param({"foreach": True}, id="foreach"),
    pytest.param({"fused": True}, id="fused"),
    pytest.param({"eps": 0.1}, id="large eps"),
]


@pytest.mark.parametrize("settings", ADAM)
@pytest.mark.parametrize("kind", [Adam, AdamW], ids=lambda kind: kind.__name__)
def test_adam_first_step(kind, settings):
    weight, g = parameter(), gradient()
    optimizer = kind([weight], lr=LR, weight_decay=0.0, **settings)
    direction = update_direction(optimizer, weight, g)
    torch.testing.assert_close(direction, taken(optimizer, weight, g))


@pytest.mark.parametrize("settings", ADAM)
@pytest.mark.parametrize("kind", [Adam, AdamW], ids=lambda kind: kind.__name__)
def test_adam_after_steps_uses_the_second_moment_as_it_stands(kind, settings):
    """Without a first moment the last step is the direction of its gradient at the new state."""
    weight = parameter()
    optimizer = kind([weight], lr=LR, betas=(0.0, 0.9), weight_decay=0.0, **settings)
    for _ in range(7):
        g = gradient() + 1
        step = taken(optimizer, weight, g)
        torch.testing.assert_close(update_direction(optimizer, weight, g), step)


@pytest.mark.parametrize("settings", ADAM)
@pytest.mark.parametrize("as_step", [False, True])
def test_some_rows_are_those_of_the_whole(settings, as_step):
    weight, g = parameter(), gradient()
    optimizer = Adam([weight], lr=LR, **settings)
    taken(optimizer, weight, g)
    whole = update_direction(optimizer, weight, g, as_step=as_step)
    rows = slice(1, None, 2)
    some = update_direction(optimizer, weight, g[rows], as_step=as_step, rows=rows)
    torch.testing.assert_close(some, whole[1::2])


def test_adam_with_a_first_moment_steps_along_the_direction_of_that_moment():
    weight = parameter()
    optimizer = AdamW([weight], lr=LR, betas=(0.9, 0.99), weight_decay=0.0)
    for k in range(1, 8):
        step = taken(optimizer, weight, gradient())
        moment = optimizer.state[weight]["exp_avg"] / (1 - 0.9**k)
        torch.testing.assert_close(update_direction(optimizer, weight, moment), step)


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda w: AdamW([w], lr=LR, amsgrad=True), id="AdamW"),
        pytest.param(lambda w: SGD([w], lr=LR, momentum=0.9), id="SGD"),
        pytest.param(lambda w: torch.optim.Adagrad([w], lr=LR), id="Adagrad"),
    ],
)
@pytest.mark.parametrize("steps", [0, 3])
def test_reading_changes_nothing(make, steps):
    weight = parameter()
    optimizer = make(weight)
    for _ in range(steps):
        taken(optimizer, weight, gradient())
    states, weights = copy.deepcopy(optimizer.state_dict()), weight.detach().clone()
    g = gradient()
    kept = g.clone()
    update_direction(optimizer, weight, g)
    torch.testing.assert_close(optimizer.state_dict(), states, rtol=0, atol=0)
    assert (weight in optimizer.state) == bool(states["state"])
    assert torch.equal(weight, weights)
    assert torch.equal(g, kept)


def test_step_count_may_be_a_number_a_tensor_or_zero():
    weight, g = parameter(), gradient()
    optimizer = Adam([weight], lr=LR)
    taken(optimizer, weight, gradient())
    expected = update_direction(optimizer, weight, g)
    optimizer.state[weight]["step"] = 1
    torch.testing.assert_close(update_direction(optimizer, weight, g), expected, rtol=0, atol=0)
    optimizer.state[weight]["step"] = torch.tensor(0.0)
    first = update_direction(
        Adam([parameter_like := nn.Parameter(weight.detach())]), parameter_like, g
    )
    torch.testing.assert_close(update_direction(optimizer, weight, g), first, rtol=0, atol=0)


def test_unknown_optimizers_fall_back_to_the_gradient_and_say_so():
    weight, g = parameter(), gradient()
    optimizer = torch.optim.RMSprop([weight], lr=LR)
    assert geometry(optimizer) == "gradient"
    torch.testing.assert_close(update_direction(optimizer, weight, g), g, rtol=0, atol=0)


def test_subclasses_keep_their_geometry():
    class MyAdam(Adam):
        pass

    assert geometry(MyAdam([parameter()])) == "adam"
    assert geometry(SGD([parameter()], lr=LR)) == "sgd"


def test_settings_are_those_of_the_parameter_group():
    first, second, g = parameter(), parameter(), gradient()
    optimizer = SGD([{"params": [first]}, {"params": [second], "momentum": 0.5}], lr=LR)
    assert momentum_gain(optimizer, first) == 1.0
    assert momentum_gain(optimizer, second) == 2.0
    with pytest.raises(ValueError, match="`optimizer` to hold the parameter of shape"):
        update_direction(optimizer, parameter(), g)


def test_half_precision_gradients_of_zero_give_zero():
    weight = nn.Parameter(torch.zeros(3, dtype=torch.float16))
    direction = update_direction(Adam([weight]), weight, torch.zeros(3, dtype=torch.float16))
    assert direction.tolist() == [0.0, 0.0, 0.0]


def test_shapes_must_agree():
    weight = parameter()
    with pytest.raises(ValueError, match=r"parameter's shape \(3, 4\), but got \(12,\)"):
        update_direction(SGD([weight], lr=LR), weight, torch.zeros(12))


@pytest.mark.parametrize("as_step", [False, True])
def test_jointly_they_are_what_they_are_one_by_one(as_step):
    weights = {name: nn.Parameter(torch.randn(3, 4)) for name in "abcdef"}
    weights["f"].requires_grad_(requires_grad=False)
    adam = AdamW(
        [
            {"params": [weights["a"], weights["b"]], "weight_decay": 0.1},
            {"params": [weights["c"]], "eps": 0.1, "maximize": True, "amsgrad": True},
        ],
        lr=LR,
    )
    sgd = SGD([weights["d"]], lr=LR, momentum=0.9)
    for _ in range(3):
        for name in "abcd":
            weights[name].grad = torch.randn(3, 4)
        adam.step()
    late = AdamW([weights["e"]], lr=LR)  # never stepped
    owner = {"a": adam, "b": adam, "c": adam, "d": sgd, "e": late}
    rows = {"b": slice(1, None, 2), "c": slice(1, None, 2)}
    gradients = {name: torch.randn(3, 4) for name in weights}
    gradients |= {name: gradients[name][rows[name]].contiguous() for name in rows}
    kept = {name: gradient.clone() for name, gradient in gradients.items()}
    found = joint_directions([adam, sgd, late], weights, gradients, as_step=as_step, rows=rows)
    assert sorted(name for part in found for name in part.names) == list("abcde")
    for part in found:
        expected = [
            momentum_gain(owner[n], weights[n])
            * update_direction(
                owner[n], weights[n], gradients[n], as_step=as_step, rows=rows.get(n)
            ).flatten()
            for n in part.names
        ]
        torch.testing.assert_close(part.numbers, torch.cat(expected), rtol=0, atol=0)
        part.numbers.zero_()
    assert all(torch.equal(gradients[name], kept[name]) for name in gradients)


def test_what_optimizers_treat_alike_is_one_direction():
    weights = {name: nn.Parameter(torch.randn(2)) for name in "abc"}
    gradients = {name: torch.randn(2) for name in weights}
    (found,) = joint_directions([AdamW(weights.values(), lr=LR)], weights, gradients)
    assert found.names == ("a", "b", "c")
