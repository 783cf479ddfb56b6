"""Task affinity: exact products, unbiased means, planted signs, nothing left behind."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torchjd.autogram import Engine

from lightning_attnbal.measure import Contribution, cross_decrease
from lightning_attnbal.multitask import AffinityMeter, affinity_matrix, gramian_affinity
from tests.unit.measure.contribution.models import distance, unit
from tests.unit.measure.contribution.twins import bits, record

DIM, BATCH, NOISE, LR = 10, 4, 1.0, 0.05
TASKS = ("a", "b", "c")


class Heads(nn.Module):
    """A shared layer and a fixed or trained head per task."""

    def __init__(self, tasks=TASKS, width=6):
        super().__init__()
        self.low = nn.Linear(DIM, width, bias=False)
        self.heads = nn.ModuleDict({t: nn.Linear(width, 1, bias=False) for t in tasks})
        self.units = [unit("low", "low.weight"), *(unit(t, f"heads.{t}.weight") for t in tasks)]

    def loss(self, task, x, y):
        return (self.heads[task](self.low(x)).squeeze(1) - y).square().mean() / 2


def backward(model, optimizer, task, scale=1.0):
    optimizer.zero_grad()
    (scale * model.loss(task, torch.randn(BATCH, DIM), torch.randn(BATCH))).backward()


@pytest.fixture
def model():
    return Heads()


@pytest.mark.parametrize(
    ("options", "gain"),
    [
        pytest.param({}, 1.0, id="SGD"),
        pytest.param({"momentum": 0.9}, 10.0, id="SGD with momentum, its long-run gain"),
    ],
)
def test_it_is_the_last_gradient_of_a_task_times_the_fresh_one(model, options, gain):
    optimizer = torch.optim.SGD(model.parameters(), lr=LR, **options)
    meter = AffinityMeter(model, model.units, TASKS)
    expected: dict[tuple[str, str], list[float]] = {}
    last: dict[str, torch.Tensor] = {}
    for task in ("a", "b", "b", "a", "c", "a"):
        backward(model, optimizer, task)
        gradient = model.low.weight.grad.clone()
        for other, earlier in last.items():
            expected.setdefault((other, task), []).append(gain * float((earlier * gradient).sum()))
        last[task] = gradient
        meter.see(task, [optimizer])
        optimizer.step()
    found = meter.estimates()
    assert {pair: f["low"].count for pair, f in found.items()} == {
        pair: len(values) for pair, values in expected.items()
    }
    for pair, values in expected.items():
        assert found[pair]["low"].mean == pytest.approx(np.mean(values), rel=1e-4)


def test_adam_directions_are_divided_by_the_second_moment_of_their_step(model):
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR)
    for task in TASKS:
        backward(model, optimizer, task)
        optimizer.step()
    meter = AffinityMeter(model, model.units, TASKS)
    backward(model, optimizer, "a")
    state = optimizer.state[model.low.weight]
    moment = 0.999 * state["exp_avg_sq"] + 0.001 * model.low.weight.grad.square()
    root = (moment / (1 - 0.999 ** (int(state["step"]) + 1))).sqrt()
    direction = model.low.weight.grad / (root + 1e-8)
    meter.see("a", [optimizer])
    optimizer.step()
    backward(model, optimizer, "b")
    meter.see("b", [optimizer])
    expected = float((direction * model.low.weight.grad).sum())
    assert meter.estimates()["a", "b"]["low"].mean == pytest.approx(expected, rel=1e-4)


class NoisyTasks:
    """Task k: y = x · w*_k + noise, at w = 0; gradients −w*_k, a batch's adds noise."""

    def __init__(self, *optima):
        self.model = nn.Linear(DIM, 1, bias=False)
        self.units = [unit("all", "weight")]
        self.optima = optima
        nn.init.zeros_(self.model.weight)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=LR)

    def backward(self, task, x=None):
        x = torch.randn(BATCH, DIM) if x is None else x
        y = x @ self.optima[int(task)] + NOISE * torch.randn(BATCH)
        self.optimizer.zero_grad()
        ((self.model(x).squeeze(1) - y).square().mean() / 2).backward()
        return self.model.weight.grad.clone()


def test_unbiased_where_a_product_on_one_batch_is_not():
    first = torch.zeros(DIM)
    first[0] = 0.7
    second = torch.zeros(DIM)
    second[:2] = torch.tensor([-0.35, 0.5])
    tasks = NoisyTasks(first, second)
    debiased: dict[tuple[str, str], list[float]] = {}
    same = []
    for _ in range(800):
        meter = AffinityMeter(tasks.model, tasks.units, ["0", "1"])
        for task in "0011":
            gradient = tasks.backward(task)
            if task == "0":
                same.append(cross_decrease([gradient], [gradient]))
            meter.see(task, [tasks.optimizer])
        for pair, found in meter.estimates().items():
            debiased.setdefault(pair, []).append(found["all"].mean)
    truth = {("0", "0"): first @ first, ("0", "1"): first @ second, ("1", "1"): second @ second}
    assert set(debiased) == set(truth)
    for pair, value in truth.items():
        assert abs(distance(debiased[pair], float(value))) <= 4
    assert distance(same, float(first @ first)) > 4


SIGNS = {("a", "b"): 1, ("a", "c"): -1, ("b", "c"): -1}


def planted(seed, num_bursts=12, burst=9):
    """The affinities of three tasks on one layer: a and b want alike features, c the opposite."""
    torch.manual_seed(seed)
    wish = torch.randn(DIM, 6)
    wishes = {
        "a": wish + 0.5 * torch.randn(DIM, 6),
        "b": wish + 0.5 * torch.randn(DIM, 6),
        "c": -wish + 0.5 * torch.randn(DIM, 6),
    }
    low = nn.Linear(DIM, 6, bias=False)
    optimizer = torch.optim.AdamW(low.parameters(), lr=1e-3)
    meter = AffinityMeter(low, [unit("low", "weight")], TASKS)
    for _ in range(num_bursts):
        meter.begin()
        for step in range(burst):
            task = TASKS[step % 3]
            x = torch.randn(BATCH, DIM)
            y = x @ wishes[task] + 4 * torch.randn(BATCH, 6)
            optimizer.zero_grad()
            (low(x) - y).square().mean().backward()
            meter.see(task, [optimizer])
            optimizer.step()
    return meter.affinity().matrix


def test_the_signs_of_planted_affinities_are_found_in_95_percent_of_seeds():
    num_seeds, right = 40, 0
    for seed in range(num_seeds):
        matrix = planted(seed)
        right += all(
            np.sign(matrix[TASKS.index(i), TASKS.index(k)]) == sign
            and np.sign(matrix[TASKS.index(k), TASKS.index(i)]) == sign
            for (i, k), sign in SIGNS.items()
        )
    assert right >= 0.95 * num_seeds


def test_a_unit_that_is_frozen_or_not_used_in_one_of_the_two_steps_is_left_out(model):
    optimizer = torch.optim.SGD(model.parameters(), lr=LR)
    meter = AffinityMeter(model, model.units, TASKS)
    for task, trains in (("a", True), ("a", True), ("b", False), ("a", True)):
        model.low.weight.requires_grad_(trains)
        backward(model, optimizer, task)
        meter.see(task, [optimizer])
    found = {pair: set(f) for pair, f in meter.estimates().items()}
    assert found == {("a", "a"): {"a", "low"}}
    assert meter.estimates()["a", "a"]["low"].count == 2


def test_a_unit_of_which_a_moved_parameter_gets_no_gradient_later_is_left_out():
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=LR)
    meter = AffinityMeter(model, [unit("all", "weight", "bias")], ["all", "bias"])
    for task in ("all", "bias", "all"):
        model.weight.requires_grad_(task == "all")
        optimizer.zero_grad()
        model(torch.ones(1, 2)).sum().backward()
        meter.see(task, [optimizer])
    # the step of "bias" moves the bias only, of which "all" has a gradient: 1 · 1
    assert meter.estimates().keys() == {("all", "all"), ("bias", "all")}
    assert meter.estimates()["bias", "all"]["all"].mean == 1.0


def test_parameters_that_no_optimizer_holds_do_not_count(model):
    optimizer = torch.optim.SGD(model.low.parameters(), lr=LR)
    meter = AffinityMeter(model, model.units, TASKS)
    for _ in range(2):
        backward(model, optimizer, "a")
        meter.see("a", [optimizer])
    assert set(meter.estimates()["a", "a"]) == {"low"}


def test_a_burst_crosses_nothing_with_the_one_before(model):
    optimizer = torch.optim.SGD(model.parameters(), lr=LR)
    meter = AffinityMeter(model, model.units, TASKS)
    for _ in range(3):
        meter.begin()
        for task in ("a", "b"):
            backward(model, optimizer, task)
            meter.see(task, [optimizer])
    assert {pair: f["low"].count for pair, f in meter.estimates().items()} == {("a", "b"): 3}


class Wide(nn.Module):
    """A parameter that is large enough to be read in parts, and one that is not."""

    def __init__(self):
        super().__init__()
        self.large, self.small = (nn.Parameter(torch.zeros(n, 128)) for n in (128, 16))
        self.scale = nn.Parameter(torch.zeros(()))
        self.units = [unit("all", "large", "small", "scale")]


@pytest.mark.parametrize("make", [torch.optim.SGD, torch.optim.AdamW])
def test_bursts_that_read_every_fourth_row_make_up_the_whole(make):
    model = Wide()
    optimizer = make(model.parameters(), lr=LR)
    generator = torch.Generator().manual_seed(0)
    shapes = [p.shape for p in model.parameters()]
    gradients = {t: [torch.randn(s, generator=generator) for s in shapes] for t in "ab"}

    def see(meter, task):
        for parameter, gradient in zip(model.parameters(), gradients[task], strict=True):
            parameter.grad = gradient.clone()
        meter.see(task, [optimizer])

    see(AffinityMeter(model, model.units, "ab"), "a")
    optimizer.step()  # Adam has its moments
    whole, parts = (AffinityMeter(model, model.units, "ab", stride=s) for s in (1, 4))
    for _ in range(4):
        for meter in (whole, parts):
            meter.begin()
            for task in "aab":
                see(meter, task)
            meter.begin()  # as at the end of a burst
    for pair, found in parts.estimates().items():
        assert found["all"].mean == pytest.approx(whole.estimates()[pair]["all"].mean, rel=1e-4)
        assert found["all"].std_error > 0


@pytest.mark.parametrize("stride", [0, -2])
def test_a_stride_is_at_least_one(model, stride):
    with pytest.raises(ValueError, match="Expected `stride`"):
        AffinityMeter(model, model.units, TASKS, stride=stride)


def test_a_gradient_with_nan_is_counted_and_left_out(model):
    optimizer = torch.optim.SGD(model.parameters(), lr=LR)
    meter = AffinityMeter(model, [model.units[0]], TASKS)
    for scale in (1.0, math.nan, 1.0, 1.0):
        backward(model, optimizer, "a", scale)
        meter.see("a", [optimizer])
    assert (meter.estimates()["a", "a"]["low"].count, meter.skipped) == (1, 2)


def fed(model, meter, tasks, optimizer):
    for task in tasks:
        backward(model, optimizer, task)
        meter.see(task, [optimizer])
        optimizer.step()


@pytest.mark.parametrize("cut", [1, 4], ids=["one direction pending", "all pending"])
def test_a_restored_meter_goes_on_as_if_nothing_had_happened(cut, tmp_path):
    order, found = "abcabcba", []
    for is_interrupted in (False, True):
        torch.manual_seed(0)
        model = Heads()
        optimizer = torch.optim.AdamW(model.parameters(), lr=LR)
        meter = AffinityMeter(model, model.units, TASKS)
        fed(model, meter, order[:cut], optimizer)
        if is_interrupted:
            torch.save(meter.state_dict(), tmp_path / "state")
            meter = AffinityMeter(model, model.units, TASKS)
            meter.load_state_dict(torch.load(tmp_path / "state"))
        fed(model, meter, order[cut:], optimizer)
        found.append((meter.estimates(), bits(meter.state_dict())))
    assert found[0] == found[1]


def test_tasks_and_units_that_are_gone_are_dropped_and_new_ones_start_empty(model):
    optimizer = torch.optim.SGD(model.parameters(), lr=LR)
    meter = AffinityMeter(model, model.units, TASKS)
    fed(model, meter, "aabbcc", optimizer)
    later = AffinityMeter(model, model.units[:1], ["a", "new"])
    later.load_state_dict(meter.state_dict())
    assert later.estimates() == {("a", "a"): {"low": meter.estimates()["a", "a"]["low"]}}
    fed(model, later, "a", optimizer)
    assert later.estimates()["a", "a"]["low"].count == 2


def test_merged_ranks_are_the_meter_that_saw_it_all(model):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    whole, *parts = (AffinityMeter(model, model.units, TASKS) for _ in range(3))
    for part in parts:
        whole.begin()
        for task in "abab":
            backward(model, optimizer, task)
            whole.see(task, [optimizer])
            part.see(task, [optimizer])
    merged = AffinityMeter(model, model.units, TASKS)
    merged.merge([part.state_dict() for part in parts])
    assert merged.estimates().keys() == whole.estimates().keys()
    for pair, found in whole.estimates().items():
        for name, value in found.items():
            got = merged.estimates()[pair][name]
            assert (got.count, got.mean) == (value.count, pytest.approx(value.mean))
            assert got.std_error == pytest.approx(value.std_error)


def test_forgotten_units_start_afresh(model):
    optimizer = torch.optim.SGD(model.parameters(), lr=LR)
    meter = AffinityMeter(model, model.units, TASKS)
    fed(model, meter, "aa", optimizer)
    meter.forget(["low"])
    assert set(meter.estimates()["a", "a"]) == {"a"}


@pytest.mark.parametrize("make", [partial(torch.optim.SGD, lr=LR), torch.optim.AdamW])
def test_training_does_not_notice(model, make):
    optimizer = make(model.parameters())
    meter = AffinityMeter(model, model.units, TASKS)
    fed(model, meter, "abc", optimizer)
    backward(model, optimizer, "a")
    before = record(model, optimizer)
    meter.see("a", [optimizer])
    assert record(model, optimizer) == before


def test_values_credit_a_step_with_what_it_does_for_the_others(model):
    optimizer = torch.optim.SGD(model.parameters(), lr=LR)
    meter = AffinityMeter(model, model.units, TASKS)
    fed(model, meter, "abab", optimizer)
    v = {pair: {u: c.mean for u, c in f.items()} for pair, f in meter.estimates().items()}
    found = meter.values("a", {"a": 2.0, "b": 0.5, "c": 1.0})
    assert found == pytest.approx(
        {"low": 2 * v["a", "a"]["low"] + 0.5 * v["a", "b"]["low"], "a": 2 * v["a", "a"]["a"]}
    )
    assert list(found) == ["low", "a"]


def contribution(mean, std_error=0.1):
    return Contribution(mean, std_error, 9)


def test_affinity_is_over_the_units_that_the_two_tasks_share():
    v = {
        ("a", "a"): {"low": contribution(3.0), "top": contribution(1.0), "a": contribution(50.0)},
        ("b", "b"): {"low": contribution(8.0), "top": contribution(1.0), "b": contribution(70.0)},
        ("a", "b"): {"low": contribution(3.0, 0.2), "top": contribution(-6.0, 0.4)},
        ("b", "a"): {"low": contribution(99.0)},
    }
    found = affinity_matrix(v, ["a", "b"])
    assert found.matrix.ravel().tolist() == pytest.approx([1.0, -0.5, 1.0, 1.0])
    assert found.errors[0, 1] == pytest.approx(0.6 / 6)
    lower = affinity_matrix(v, ["a", "b"], units=["low"])
    assert lower.matrix[0, 1] == pytest.approx(3 / math.sqrt(24))


@pytest.mark.parametrize(
    "own",
    [
        pytest.param({}, id="no estimate"),
        pytest.param({"low": contribution(0.0)}, id="nothing to gain"),
        pytest.param({"low": contribution(-1.0)}, id="below zero"),
    ],
)
def test_affinity_is_unknown_without_a_gain_of_the_task_itself(own):
    v = {
        ("a", "a"): {"low": contribution(1.0)},
        ("b", "b"): own,
        ("a", "b"): {"low": contribution(1.0)},
    }
    found = affinity_matrix(v, ["a", "b"])
    assert np.isnan(found.matrix).tolist() == [[False, True], [True, True]]
    assert np.isnan(found.errors).tolist() == [[False, True], [True, True]]


def test_unknown_and_repeated_names_are_refused(model):
    meter = AffinityMeter(model, model.units, TASKS)
    with pytest.raises(ValueError, match="Expected `task` to be one of 'a', 'b', 'c', but got 'd'"):
        meter.see("d", [])
    with pytest.raises(ValueError, match="Expected `task` to be one of 'a', 'b', 'c', but got 'd'"):
        meter.values("d", {})
    with pytest.raises(ValueError, match="Expected `weights` to be one of 'a', 'b', 'c'"):
        meter.values("a", {"d": 1.0})
    with pytest.raises(ValueError, match="Expected `tasks` to be at least one name, each once"):
        AffinityMeter(model, model.units, ["a", "a"])


def test_gramian_affinity_is_the_cosine_of_the_gradients():
    model = Heads()
    engine = Engine(model.low, batch_dim=None)
    features = model.low(torch.randn(BATCH, DIM))
    losses = {t: (model.heads[t](features) - i).square().mean() for i, t in enumerate(TASKS)}
    found = gramian_affinity(engine, losses)
    rows = torch.stack(
        [
            torch.autograd.grad(loss, model.low.weight, retain_graph=True)[0].flatten()
            for loss in losses.values()
        ]
    )
    torch.testing.assert_close(found, _cosines(rows))


def _cosines(rows):
    unit_rows = nn.functional.normalize(rows, dim=1)
    return unit_rows @ unit_rows.T
