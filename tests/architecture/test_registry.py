"""No public method without an entry in the registry, and every entry keeps the common contract."""

import inspect
from dataclasses import is_dataclass

import pytest
import torch
from torch import nn

from lightning_attnbal import allocate, apply, measure, multitask
from lightning_attnbal.allocate import Allocator, Limits
from lightning_attnbal.core import (
    FROZEN,
    FULL,
    InfeasibleBudgetError,
    Menu,
    Option,
    Plan,
    Problem,
    Unit,
    UnitKind,
)
from lightning_attnbal.multitask import ShareRule, TaskStatus
from tests.registry import ALLOCATORS, APPLIERS, CACHES, METERS, RULES


def public_classes(package):
    values = [getattr(package, name) for name in package.__all__]
    return {v for v in values if inspect.isclass(v) and not inspect.isabstract(v)}


def acting_classes(package):
    """Classes that do something, as opposed to frozen values and errors."""
    return {
        c for c in public_classes(package) if not is_dataclass(c) and not issubclass(c, Exception)
    }


@pytest.fixture
def problem():
    """Three layers, from the cheapest plan (cost 4) to full training (cost 8)."""
    options = (
        Option(level=FROZEN, cost=1, cost_above=0.5),
        Option(level=FULL, cost=2, cost_above=1, value=1),
    )
    return Problem(tuple(Menu(f"layer.{i}", options) for i in range(3)))


@pytest.fixture
def model():
    return nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5), nn.Linear(2, 2))


@pytest.fixture
def units():
    names = (("0", "1"), ("2",))
    return [
        Unit(f"layer.{i}", i, UnitKind.BLOCK, modules, (f"{modules[0]}.weight",), 4)
        for i, modules in enumerate(names)
    ]


def test_every_public_allocator_is_registered():
    assert {c for c in public_classes(allocate) if issubclass(c, Allocator)} == set(ALLOCATORS)


def test_every_public_share_rule_is_registered():
    assert {c for c in public_classes(multitask) if issubclass(c, ShareRule)} == set(RULES)


@pytest.mark.parametrize("kind", RULES, ids=lambda kind: kind.__name__)
def test_share_rule_gives_every_task_a_share_before_anything_was_seen(kind):
    tasks = [TaskStatus(name=name, num_batches=n) for name, n in (("big", 30), ("small", 10))]
    shares = RULES[kind]()(tasks)
    assert sum(shares.values()) == pytest.approx(1)
    assert all(shares[name] > 0 for name in ("big", "small"))


def test_every_public_meter_is_registered():
    assert acting_classes(measure) == set(METERS)


def test_every_public_applier_is_registered():
    assert acting_classes(apply) == set(APPLIERS) | set(CACHES)


@pytest.mark.parametrize("kind", ALLOCATORS, ids=lambda kind: kind.__name__)
def test_allocator_plans_every_unit_within_what_remains(kind, problem):
    plan = ALLOCATORS[kind]()(problem, Limits(remaining=100, max_steps=10))
    assert list(plan) == [menu.unit for menu in problem.menus]
    assert problem.why_invalid(tuple(plan.values())) is None
    assert plan.cost_per_step * plan.num_steps <= 100


@pytest.mark.parametrize("kind", ALLOCATORS, ids=lambda kind: kind.__name__)
def test_allocator_repeats_its_plan(kind, problem):
    limits = Limits(remaining=100)
    assert ALLOCATORS[kind]()(problem, limits) == ALLOCATORS[kind]()(problem, limits)


@pytest.mark.parametrize("kind", ALLOCATORS, ids=lambda kind: kind.__name__)
def test_allocator_says_when_nothing_fits(kind, problem):
    with pytest.raises(InfeasibleBudgetError, match="to be at least"):
        ALLOCATORS[kind]()(problem, Limits(remaining=1.0))


@pytest.mark.parametrize("kind", METERS, ids=lambda kind: kind.__name__)
def test_meter_leaves_the_model_alone_when_made(kind, model, units):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    meter = METERS[kind](model, units)
    assert type(meter) is kind
    assert all(not module._forward_hooks for module in model.modules())
    torch.testing.assert_close(dict(model.state_dict()), before, rtol=0, atol=0)


@pytest.mark.parametrize("kind", APPLIERS, ids=lambda kind: kind.__name__)
def test_applier_undoes_what_it_applied(kind, model, units):
    applier = APPLIERS[kind](model, units)
    applier.apply(Plan({"layer.0": FROZEN, "layer.1": FULL}))
    assert [p.requires_grad for p in model.parameters()] == [False, True, True, True]
    assert not model[1].training
    assert model[2].training
    applier.undo()
    assert all(p.requires_grad for p in model.parameters())
    assert all(m.training for m in model)
