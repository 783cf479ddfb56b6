"""Formulas: what a plan costs, which menus come out, planted graphs and step times."""

from __future__ import annotations

import json
import random

import pytest

from lightning_attnbal.core import (
    CACHED,
    DETACHED,
    FROZEN,
    FULL,
    LOCAL,
    Caching,
    Dimension,
    PassCost,
    Plan,
    Unit,
    UnitKind,
    UnitLoad,
    lora,
)
from lightning_attnbal.measure import (
    StepTimeModel,
    bottlenecks,
    build_problem,
    critical_path,
    plan_cost,
)

COST = PassCost(
    forward=10.0, own_backward=15.0, pass_backward=11.0, full_backward=21.0, optimizer=2.0
)


def load(index, predecessors=(), cost=COST, name=None, **options):
    name = name or f"layer.{index}"
    unit = Unit(name, index, UnitKind.BLOCK, (name,), (f"{name}.weight",), 4)
    return UnitLoad(unit, cost, predecessors=predecessors, **options)


def chain(num_units, **options):
    return [load(i, (i - 1,) if i else (), **options) for i in range(num_units)]


@pytest.mark.parametrize(
    ("levels", "expected"),
    [
        ([FROZEN, FROZEN, FROZEN], 30),
        ([FROZEN, FROZEN, FULL], 10 + 10 + 27),
        ([FROZEN, FULL, FROZEN], 10 + 27 + 21),
        ([FULL, FULL, FULL], 27 + 33 + 33),
        ([FULL, DETACHED, LOCAL], 27 + 10 + 27),
        ([CACHED, CACHED, FULL], 27),
        ([FULL, lora(4), FROZEN], 27 + 21 + 21),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, list) else "",
)
def test_cost_of_a_chain(levels, expected):
    assert plan_cost(chain(3), levels) == expected
    names = {f"layer.{i}": level for i, level in enumerate(levels)}
    assert plan_cost(chain(3), Plan(names), fixed=5.0) == expected + 5


def test_dx_is_paid_only_downstream_of_what_trains():
    towers = [load(0), load(1), load(2, (0, 1))]
    assert plan_cost(towers, [FULL, FROZEN, FROZEN]) == 27 + 10 + 21
    assert plan_cost(towers, [FULL, FULL, FROZEN]) == 27 + 27 + 21


CROSS = PassCost(
    10.0, 15.0, 11.0, 21.0, side_input=3.0, side_source=0, main_pass=4.0, main_full=2.0
)


@pytest.mark.parametrize(
    ("levels", "expected"),
    [
        ([FULL, FULL, FULL], 21),
        ([FROZEN, FULL, FULL], 21 - 3),
        ([FROZEN, FULL, FROZEN], 11 - 3),
        ([FULL, FROZEN, FULL], 21 - 2),
        ([FULL, FROZEN, FROZEN], 11 - 4),
        ([FROZEN, FROZEN, FULL], 15),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, list) else "",
)
def test_side_inputs(levels, expected):
    free = PassCost()
    loads = [load(0, cost=free), load(1, cost=free), load(2, (0, 1), CROSS)]
    assert plan_cost(loads, levels) == 10 + expected


def test_accumulated_batches_multiply_all_but_the_optimizer():
    assert plan_cost(chain(1), [FULL], batches_per_step=4) == 4 * 25 + 2


@pytest.mark.parametrize("seed", range(20))
def test_graph_cost_is_never_above_the_chain_and_equal_for_chains(seed):
    generator = random.Random(seed)
    size = generator.randint(1, 6)

    def cost():
        own, passed = generator.random(), generator.random()
        full = max(own, passed) + generator.random()
        return PassCost(generator.random(), own, passed, full, generator.random())

    graph = [
        load(i, tuple(sorted(generator.sample(range(i), generator.randint(0, i)))), cost())
        for i in range(size)
    ]
    levels = (*generator.choices([FROZEN, FULL], k=size - 1), FULL)
    values = {x.unit.name: 1.0 for x in graph}
    bound = build_problem(graph, values).evaluate(levels)[0]
    assert plan_cost(graph, levels) <= bound + 1e-9
    line = [load(i, (i - 1,) if i else (), x.flops) for i, x in enumerate(graph)]
    assert plan_cost(line, levels) == pytest.approx(build_problem(line, values).evaluate(levels)[0])


def test_menus():
    loads = chain(3, can_detach=True, saved_bytes=100, parameter_bytes=16, optimizer_bytes=32)
    every = (FROZEN, DETACHED, LOCAL, FULL, CACHED)
    problem = build_problem(loads, {"layer.0": 1.0, "layer.2": 3.0}, every, fixed=7.0)
    menus = [{str(o.level): o for o in menu.options} for menu in problem.menus]
    assert [list(menu) for menu in menus] == [
        ["frozen", "detached", "local", "full", "cached"],
        ["frozen", "detached", "cached"],
        ["frozen", "detached", "local", "full", "cached"],
    ]
    full, frozen = menus[2]["full"], menus[2]["frozen"]
    assert (full.cost, full.cost_above, full.value, full.memory) == (27, 6, 3.0, 148)
    assert (frozen.cost, frozen.cost_above, frozen.value) == (10, 11, 0.0)
    assert (frozen.memory, frozen.memory_above) == (0, 100)
    assert (menus[2]["local"].cost, menus[2]["local"].cost_above) == (27, 0)
    assert (problem.fixed, problem.fixed_memory) == (7.0, 48)


def test_branches_that_cannot_be_cut_and_units_without_parameters():
    empty = UnitLoad(Unit("pool", 0, UnitKind.OTHER, ("pool",), (), 0), COST)
    problem = build_problem([empty, load(1)], {"pool": 1.0, "layer.1": 1.0}, [LOCAL, FULL])
    assert [[str(o.level) for o in menu.options] for menu in problem.menus] == [
        ["frozen"],
        ["frozen", "full"],
    ]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: plan_cost(chain(2), [FULL]), r"one level per unit \(2\), but got 1"),
        (lambda: plan_cost(chain(2), {"layer.0": FULL}), "layer.1 is missing"),
        (lambda: build_problem(chain(1), {"x": 1.0}), r"name units \(layer.0\), but got x"),
        (lambda: build_problem(chain(1), {}, [lora(4)]), "but got lora4"),
        (lambda: plan_cost(chain(1), [FULL], dimension=Dimension.SECOND), "measured seconds"),
        (lambda: plan_cost(chain(1), [FULL], dimension=Dimension.BYTE), "but got BYTE"),
        (lambda: critical_path([]), "at least one unit"),
        (lambda: bottlenecks(chain(2), count=0), r"`count` to be in \[1, inf\), but got 0"),
    ],
)
def test_wrong_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_critical_path_takes_the_dearer_tower():
    def flops(amount):
        return PassCost(forward=amount)

    loads = [
        load(0, (), flops(5.0), "image.0"),
        load(1, (0,), flops(5.0), "image.1"),
        load(2, (), flops(12.0), "text"),
        load(3, (1, 2), flops(2.0), "head"),
    ]
    path = critical_path(loads)
    assert path.units == ("text", "head")
    assert (path.length, path.total, path.dimension) == (14.0, 24.0, Dimension.FLOP)
    assert bottlenecks(loads, count=2) == ("text", "image.0")


def test_critical_path_goes_by_seconds_where_they_are_known():
    slow = PassCost(forward=1.0)
    loads = [
        load(0, seconds=slow),
        load(1, seconds=PassCost(forward=3.0)),
        load(2, (0, 1), seconds=slow),
    ]
    path = critical_path(loads)
    assert (path.units, path.length, path.dimension) == (
        ("layer.1", "layer.2"),
        4.0,
        Dimension.SECOND,
    )
    assert path.parallelism == 5.0 / 4.0


def timed_chain(num_units=6):
    generator = random.Random(1)
    loads = []
    for x in chain(num_units):
        own = generator.uniform(1, 2)
        cost = PassCost(own / 2, own, own, 2 * own, generator.uniform(0.1, 2))
        loads.append(UnitLoad(x.unit, COST, cost, predecessors=x.predecessors))
    return tuple(loads)


def random_levels(generator, num_units=6):
    return [*generator.choices([FROZEN, FULL], k=num_units - 1), FULL]


@pytest.mark.parametrize(
    "coefficients", [(1.0, 1.0, 1.0), (0.8, 1.3, 2.0), (2.0, 2.5, 0.5)], ids=str
)
def test_step_time_model_predicts_from_planted_coefficients(coefficients):
    generator = random.Random(0)
    truth = StepTimeModel(timed_chain(), coefficients, constant=0.5)
    seen = [
        (levels, truth.predict(levels)) for levels in (random_levels(generator) for _ in range(8))
    ]
    fitted = StepTimeModel(timed_chain()).fit(seen, prior_weight=1e-4)
    for _ in range(20):
        levels = random_levels(generator)
        assert fitted.predict(levels) == pytest.approx(truth.predict(levels), rel=1e-3)
    assert fitted.coefficients[1:] == pytest.approx(coefficients[1:], rel=1e-2)


def test_step_time_model_with_noise_and_few_steps():
    generator = random.Random(0)
    truth = StepTimeModel(timed_chain(), (1.2, 1.5, 0.7), constant=0.3)
    seen = [
        (levels, truth.predict(levels) * generator.uniform(0.97, 1.03))
        for levels in (random_levels(generator) for _ in range(6))
    ]
    fitted = StepTimeModel(timed_chain()).fit(seen)
    for _ in range(20):
        levels = random_levels(generator)
        assert fitted.predict(levels) == pytest.approx(truth.predict(levels), rel=0.05)


def test_one_observation_sets_the_speed_of_the_machine():
    model = StepTimeModel(timed_chain())
    slower = model.fit([([FULL] * 6, 3 * model.predict([FULL] * 6))])
    levels = [FROZEN] * 3 + [FULL] * 3
    assert slower.predict(levels) == pytest.approx(3 * model.predict(levels))


def test_calibrated_loads_give_the_same_plan_cost():
    model = StepTimeModel(timed_chain(), (0.8, 1.3, 2.0), constant=0.5, batches_per_step=2)
    levels = [FROZEN, FULL, FROZEN, FROZEN, FULL, FULL]
    options = {"dimension": Dimension.SECOND, "batches_per_step": 2, "fixed": model.constant}
    cost = plan_cost(model.scaled_loads(), levels, **options)
    assert cost == pytest.approx(model.predict(levels))


def test_step_time_model_survives_json():
    model = StepTimeModel(timed_chain(), (0.8, 1.3, 2.0), constant=0.5)
    assert StepTimeModel.from_dict(json.loads(json.dumps(model.to_dict()))) == model


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m.fit([]), "at least one measured step"),
        (lambda m: m.fit([([FULL] * 6, 0.0)]), r"`seconds` to be in \(0, inf\), but got 0.0"),
        (
            lambda m: m.fit([([FULL] * 6, 1.0)], prior_weight=0),
            r"`prior_weight` to be in \(0, inf\)",
        ),
        (lambda m: StepTimeModel(m.loads, constant=-1.0), r"\[0, inf\), but got -1.0"),
        (
            lambda m: StepTimeModel.from_dict({"loads": []}),
            "Expected the keys of a step-time model",
        ),
    ],
)
def test_step_time_model_refuses_wrong_input(call, message):
    with pytest.raises(ValueError, match=message):
        call(StepTimeModel(timed_chain()))


@pytest.mark.parametrize(
    "fills", [(5, 5, 5), (9, 4, 0), (0, 3, 9)], ids=["even", "deeper fuller", "shallow fuller"]
)
def test_filling_a_prefix_costs_its_forward_pass_whatever_shallower_ones_would(fills):
    loads = chain(4)
    terms = {f"layer.{i}": Caching(fill=fill) for i, fill in enumerate(fills)}
    problem = build_problem(
        loads, {x.unit.name: 1.0 for x in loads}, [CACHED, FULL], batches_per_step=2, caching=terms
    )
    for depth in (1, 2, 3):
        levels = (CACHED,) * depth + (FULL,) * (4 - depth)
        assert problem.one_off(levels) == pytest.approx(10.0 * depth * fills[depth - 1])


def test_missed_and_read_samples_cost_something_per_step():
    loads = chain(3)
    terms = {"layer.0": Caching(miss=0.2, read=1.0), "layer.1": Caching(miss=0.1, read=3.0)}
    problem = build_problem(
        loads, {"layer.2": 1.0}, [CACHED, FULL], batches_per_step=4, caching=terms
    )
    first, second = (problem.menus[i].option(CACHED).cost for i in (0, 1))
    assert first == pytest.approx(4 * (0.2 * 10 + 1))
    assert first + second == pytest.approx(4 * (0.1 * 20 + 3))


def test_units_without_terms_are_not_offered_to_be_cached():
    problem = build_problem(chain(2), {"layer.1": 1.0}, [CACHED, FULL], caching={})
    assert all(option.level != CACHED for menu in problem.menus for option in menu.options)
