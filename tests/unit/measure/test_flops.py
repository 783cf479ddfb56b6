"""The counted cost of every plan against torch's own count of the same real step."""

from __future__ import annotations

import random
from functools import cache

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

from lightning_attnbal.core import FROZEN, FULL, Dimension, Level, Unit, UnitKind
from lightning_attnbal.measure import (
    UnitTracer,
    build_problem,
    count_fixed,
    count_units,
    discover_units,
    flop_counter,
    order_units,
    plan_cost,
)
from tests.families import FAMILIES

MIXED = ["bert", "gpt2", "t5", "tv_resnet18", "lstm_attention"]


def units_of(model: nn.Module, *groups: tuple[str, ...]) -> list[Unit]:
    """One block per group of module names."""
    units = []
    for index, modules in enumerate(groups):
        parameters = [
            name
            for name, _ in model.named_parameters()
            if any(name.startswith(f"{module}.") for module in modules)
        ]
        units.append(Unit(modules[0], index, UnitKind.BLOCK, modules, tuple(parameters), 1))
    return units


def real_flops(model, loss, units, levels) -> int:
    """FLOPs of one real step in which exactly the units at `full` train."""
    trained = {
        n for u, level in zip(units, levels, strict=True) if level is FULL for n in u.parameters
    }
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in trained)
    with flop_counter() as counter:
        loss(model).backward()
    return counter.get_total_flops()


@cache
def counted(name: str):
    """(model, units, loads, fixed, plans that can be) of a family, everything counted once."""
    torch.set_num_threads(1)
    family = FAMILIES[name]
    model = family.build()
    trainable = {name for name, p in model.named_parameters() if p.requires_grad}
    units = discover_units(model)
    with UnitTracer(model, units) as tracer:
        trace = tracer.stop(family.loss(model, family.batch()))
    units = order_units(units, trace.calls)
    fixed = count_fixed(model, units, trace).total
    loads = count_units(model, units, trace, trainable=trainable)
    can_train = tuple(bool(trainable & set(unit.parameters)) for unit in units)
    return model, units, loads, fixed, can_train


def possible(levels, can_train) -> list[Level]:
    return [x if can else FROZEN for x, can in zip(levels, can_train, strict=True)]


def plans(num_units: int) -> dict[str, list[Level]]:
    third = num_units // 3
    return {
        "full": [FULL] * num_units,
        "lowest third frozen": [FROZEN] * third + [FULL] * (num_units - third),
        "two thirds frozen": [FROZEN] * 2 * third + [FULL] * (num_units - 2 * third),
        "head only": [FROZEN] * (num_units - 1) + [FULL],
    }


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.filterwarnings("ignore:.*loss_type.*")
def test_plan_cost_is_torchs_count_of_the_real_step(name):
    family = FAMILIES[name]
    model, units, loads, fixed, can_train = counted(name)
    for plan, wanted in plans(len(units)).items():
        levels = possible(wanted, can_train)
        expected = real_flops(model, lambda m: family.loss(m, family.batch()), units, levels)
        assert plan_cost(loads, levels, fixed=fixed) == pytest.approx(expected, rel=0.01), plan


@pytest.mark.parametrize("name", MIXED)
@pytest.mark.filterwarnings("ignore:.*loss_type.*")
def test_scattered_plans_cost_what_torch_counts_and_never_more_than_the_chain(name):
    family = FAMILIES[name]
    model, units, loads, fixed, can_train = counted(name)
    values = {unit.name: 1.0 for unit in units}
    problem = build_problem(loads, values, dimension=Dimension.FLOP, fixed=fixed)
    generator = random.Random(0)
    for _ in range(3):
        wanted = [*generator.choices([FROZEN, FULL], k=len(units) - 1), FULL]
        levels = possible(wanted, can_train)
        cost = plan_cost(loads, levels, fixed=fixed)
        expected = real_flops(model, lambda m: family.loss(m, family.batch()), units, levels)
        assert cost == pytest.approx(expected, rel=0.01), levels
        assert cost <= problem.evaluate(tuple(levels))[0] + 1.0


def test_a_shape_seen_before_is_not_counted_again():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    units = units_of(model, ("0",), ("1",))
    with UnitTracer(model, units) as tracer:
        trace = tracer.stop(model(torch.ones(2, 4)))
    memo = {}
    first = count_units(model, units, trace, memo=memo)
    size = len(memo)
    assert count_units(model, units, trace, memo=memo) == first
    assert len(memo) == size


def test_equal_layers_are_counted_once():
    def entries(num_layers: int) -> int:
        model = nn.Sequential(*(nn.Linear(4, 4) for _ in range(num_layers)))
        units = units_of(model, *((str(i),) for i in range(num_layers)))
        with UnitTracer(model, units) as tracer:
            trace = tracer.stop(model(torch.ones(2, 4)))
        memo = {}
        count_units(model, units, trace, memo=memo)
        return len(memo)

    assert entries(6) == entries(2)


def test_a_shared_layer_pays_dx_for_all_calls_but_the_first():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 4, bias=False)

        def forward(self, x):
            for _ in range(3):
                x = self.layer(x)
            return x

    model = Shared()
    units = units_of(model, ("layer",))
    with UnitTracer(model, units) as tracer:
        trace = tracer.stop(model(torch.ones(2, 4)))
    (load,) = count_units(model, units, trace)
    product = 2 * 2 * 4 * 4
    assert (load.flops.forward, load.flops.own_backward) == (3 * product, 5 * product)
    assert load.flops.pass_backward == 0


class Contrastive(nn.Module):
    """Two towers, compared by a matrix product between modules, and an unused branch."""

    def __init__(self):
        super().__init__()
        self.image, self.text = nn.Linear(6, 4, bias=False), nn.Linear(5, 4, bias=False)
        self.unused = nn.Linear(4, 4, bias=False)

    def forward(self, image, text):
        image, text = self.image(image), self.text(text)
        self.unused(image)
        return image @ text.T


def test_products_between_modules_and_dead_branches():
    model, inputs = Contrastive(), (torch.ones(3, 6), torch.ones(3, 5))
    units = units_of(model, ("image",), ("text",), ("unused",))
    with UnitTracer(model, units) as tracer:
        trace = tracer.stop(model(*inputs).square().mean())
    loads = count_units(model, units, trace)
    assert loads[2].flops.full_backward == 0
    assert [load.predecessors for load in loads] == [(), (0,), (0,)]
    for levels in ([FULL, FULL, FULL], [FULL, FROZEN, FROZEN], [FROZEN, FULL, FROZEN]):
        expected = real_flops(model, lambda m: m(*inputs).square().mean(), units, levels)
        assert plan_cost(loads, levels) == expected


def test_products_of_raw_inputs_are_fixed():
    class Kernel(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(3, 1, bias=False)

        def forward(self, x):
            return self.head(x @ x.T)

    model = Kernel()
    units = units_of(model, ("head",))
    with UnitTracer(model, units) as tracer:
        trace = tracer.stop(model(torch.ones(3, 5)))
    assert count_fixed(model, units, trace).total == 2 * 3 * 3 * 5
    assert count_units(model, units, trace)[0].flops.total == 2 * 2 * 3 * 3


def test_parameters_that_never_train_cost_no_weight_gradient():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    units = units_of(model, ("0",), ("1",))
    with UnitTracer(model, units) as tracer:
        trace = tracer.stop(model(torch.ones(2, 4)))
    loads = count_units(model, units, trace, trainable=["1.weight", "1.bias"])
    product = 2 * 2 * 4 * 4
    assert [load.flops.full_backward for load in loads] == [0, product]


def test_module_that_overwrites_its_input():
    model = nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.ReLU(inplace=True), nn.Linear(4, 4)))
    units = units_of(model, ("0",), ("1",))
    with UnitTracer(model, units) as tracer:
        trace = tracer.stop(model(torch.ones(2, 4)))
    loads = count_units(model, units, trace)
    assert plan_cost(loads, [FULL, FULL]) == 2 * 2 * 4 * 4 * 5


def test_bytes():
    model = nn.Sequential(nn.Linear(8, 16, bias=False), nn.Sigmoid(), nn.Linear(16, 2, bias=False))
    units = units_of(model, ("0",), ("2",))
    optimizer = torch.optim.AdamW(model.parameters())
    with UnitTracer(model, units) as tracer:
        trace = tracer.stop(model(torch.ones(4, 8)))
    loads = count_units(model, units, trace, optimizer=optimizer)
    assert [load.saved_bytes for load in loads] == [4 * 8 * 4, 4 * 16 * 4]
    assert [load.parameter_bytes for load in loads] == [8 * 16 * 4, 16 * 2 * 4]
    assert [load.optimizer_bytes for load in loads] == [2 * 8 * 16 * 4, 2 * 16 * 2 * 4]


@pytest.mark.parametrize(
    ("build", "copies"),
    [
        (lambda p: torch.optim.SGD(p, lr=0.1), 0),
        (lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9), 1),
        (torch.optim.Adam, 2),
        (lambda p: torch.optim.AdamW(p, amsgrad=True), 3),
    ],
    ids=["sgd", "momentum", "adam", "amsgrad"],
)
@pytest.mark.parametrize("steps", [0, 1], ids=["before the first step", "after it"])
def test_optimizer_bytes(build, copies, steps):
    model = nn.Linear(8, 16, bias=False)
    units = [Unit("all", 0, UnitKind.BLOCK, ("",), ("weight",), 128)]
    optimizer = build(model.parameters())
    for _ in range(steps):
        model(torch.ones(2, 8)).sum().backward()
        optimizer.step()
    with UnitTracer(model, units) as tracer:
        trace = tracer.stop(model(torch.ones(2, 8)))
    (load,) = count_units(model, units, trace, optimizer=optimizer)
    assert load.optimizer_bytes == copies * 8 * 16 * 4


def test_counting_leaves_the_model_and_torch_alone():
    model = FAMILIES["tv_resnet18"].build()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    units = discover_units(model)
    with UnitTracer(model, units) as tracer, torch.no_grad():
        trace = tracer.stop(model.eval()(*FAMILIES["tv_resnet18"].batch()["args"]))
    model.train()
    count_units(model, units, trace)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert torch.backends.mkldnn.enabled
    assert torch.backends.cudnn.enabled


class Packed(nn.Module):
    """A recurrent layer over a packed sequence: the shapes depend on the lengths."""

    def __init__(self):
        super().__init__()
        self.low, self.recurrent = nn.Linear(4, 8, bias=False), nn.LSTM(8, 8, batch_first=True)

    def forward(self, x, lengths):
        packed = pack_padded_sequence(self.low(x), lengths, batch_first=True, enforce_sorted=False)
        return self.recurrent(packed)[0].data


class Routed(nn.Module):
    """Each row goes to one of two equal experts, which one depends on its numbers."""

    def __init__(self):
        super().__init__()
        self.low = nn.Linear(4, 8, bias=False)
        self.block = Experts()

    def forward(self, x):
        return self.block(self.low(x))


class Experts(nn.Module):
    def __init__(self):
        super().__init__()
        self.twins = nn.ModuleList(nn.Linear(8, 8, bias=False) for _ in range(2))

    def forward(self, x):
        out = torch.zeros_like(x)
        for number, expert in enumerate(self.twins):
            rows = torch.where((x.sum(-1) > 0) == bool(number))[0]
            out[rows] = expert(x[rows])
        return out


@pytest.mark.parametrize(
    ("build", "modules", "inputs"),
    [
        (Packed, ("low", "recurrent"), (torch.ones(3, 6, 4), torch.tensor([2, 6, 3]))),
        (Routed, ("low", "block"), (torch.ones(5, 4),)),
    ],
    ids=["packed sequence", "experts"],
)
def test_shapes_that_depend_on_numbers(build, modules, inputs):
    model = build()
    units = units_of(model, *((name,) for name in modules))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with UnitTracer(model, units) as tracer:
        trace = tracer.stop(model(*inputs))
    random_state = torch.get_rng_state()
    loads = count_units(model, units, trace)
    assert torch.equal(random_state, torch.get_rng_state())
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    for levels in ([FULL, FULL], [FROZEN, FULL], [FULL, FROZEN]):
        expected = real_flops(model, lambda m: m(*inputs).sum(), units, levels)
        assert plan_cost(loads, levels) == pytest.approx(expected, rel=0.01)


def test_boundary_bytes_are_what_a_batch_takes_above_each_unit():
    model = nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 7), nn.Linear(7, 2))
    units = [
        Unit(str(i), i, UnitKind.BLOCK, (str(i),), (f"{i}.weight", f"{i}.bias"), 1)
        for i in range(3)
    ]
    with UnitTracer(model, units) as tracer:
        trace = tracer.stop(model(torch.ones(4, 3)).sum())
    loads = count_units(model, units, trace)
    assert [load.boundary_bytes for load in loads] == [4 * 5 * 4, 4 * 7 * 4, 0]


@pytest.mark.parametrize("groups", [1, 4, 8], ids=lambda g: f"groups={g}")
@pytest.mark.parametrize("kind", [nn.Conv2d, nn.ConvTranspose2d], ids=["conv", "transposed"])
def test_a_grouped_convolution_costs_as_many_products_each_way(kind, groups):
    layer = kind(8, 8, 3, groups=groups, bias=False)
    image = torch.ones(2, 8, 6, 6, requires_grad=True)
    with flop_counter() as forward:
        out = layer(image)
    with flop_counter() as backward:
        out.sum().backward()
    assert backward.get_total_flops() == 2 * forward.get_total_flops()
    one = kind(8 // groups, 8 // groups, 3, bias=False)
    with flop_counter() as single:
        one(torch.ones(2, 8 // groups, 6, 6))
    assert forward.get_total_flops() == groups * single.get_total_flops()
