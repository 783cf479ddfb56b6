"""The methods that decide from what they measure, and FreezeOut: their rules, and what they did."""

import itertools

import pytest
import torch

from lightning_attnbal.core import FROZEN, FULL, PassCost, Unit, UnitKind, UnitLoad
from lightning_attnbal.measure import discover_units, plan_cost
from recipes.benchmarks.compare.methods import AutoFreeze, DropBP, FreezeOut, Full, GreenTrainer
from recipes.benchmarks.compare.methods._autofreeze import frozen_prefix
from recipes.benchmarks.compare.methods._branches import BranchDropper, branches_of
from recipes.benchmarks.compare.methods._dropbp import greedy_rates
from recipes.benchmarks.compare.methods._greentrainer import select_units
from recipes.benchmarks.compare.methods._probe import gradients, loss_of
from tests.recipes.compare.tiny import LR, NUM_BLOCKS, batches, blocks, copied, run


def owners(module):
    """Unit of each parameter."""
    return {name: unit for unit in discover_units(module) for name in unit.parameters}


# -- AutoFreeze ----------------------------------------------------------------------------------


def test_the_frozen_prefix_ends_at_the_first_block_that_changes_much():
    before = dict.fromkeys("abcd", 1.0)
    assert frozen_prefix(before, {"a": 1.5, "b": 1.1, "c": 1.2, "d": 1.3}, 50) == []
    assert frozen_prefix(before, {"a": 1.1, "b": 0.8, "c": 1.5, "d": 1.4}, 50) == ["a", "b"]
    assert frozen_prefix(before, {"d": 1.0}, 50) == []


def test_autofreeze_freezes_a_growing_prefix(tmp_path):
    watch, *_ = run(tmp_path, AutoFreeze(num_intervals=8))
    lowest = [min(blocks(moved)) for moved in watch.moved]
    assert lowest[0] == 0
    assert lowest == sorted(lowest)
    assert 0 < lowest[-1] < NUM_BLOCKS
    for moved, low in zip(watch.moved, lowest, strict=True):
        assert blocks(moved) == list(range(low, NUM_BLOCKS))
        assert any("embeddings" in name for name in moved) == (low == 0)


# -- FreezeOut -----------------------------------------------------------------------------------


def test_freezeout_ends_follow_the_paper():
    assert FreezeOut(first_end=0.5, is_cubic=False).ends(6) == pytest.approx(
        [0.5, 0.6, 0.7, 0.8, 0.9, 1.0]
    )
    assert FreezeOut().ends(3) == pytest.approx([0.8**3, 0.9**3, 1.0])
    assert FreezeOut(is_scaled=False).factor(0.0, 0.5) == 1.0
    assert FreezeOut().ends(1) == [1.0]


def test_freezeout_freezes_from_below_at_its_shares(tmp_path, module):
    method = FreezeOut(first_end=0.5, is_cubic=False)
    units = [unit.name for unit in discover_units(module)]
    where = {name: unit.name for name, unit in owners(module).items()}
    watch, budget, _ = run(tmp_path, method, module)
    ends = dict(zip(units, method.ends(len(units)), strict=True))
    costs = itertools.accumulate(_step_costs(watch, budget), initial=0.0)
    for moved, spent in zip(watch.moved, costs, strict=False):
        progress = spent / budget.limit_flops
        assert {where[name] for name in moved} == {u for u in units if progress < ends[u]}


def test_freezeout_rates_are_per_unit(tmp_path, module):
    watch, *_ = run(tmp_path, FreezeOut(), module)
    num_units = len(discover_units(module))
    ends = FreezeOut().ends(num_units)
    assert watch.rates[0] == pytest.approx([LR / end for end in ends])
    assert watch.rates[-1][: num_units - 1] == [0.0] * (num_units - 1)


def _step_costs(watch, budget):
    """FLOPs of each step, from what it trained and the lengths of the batches."""
    data = batches()
    for number, trained in enumerate(watch.trainable):
        shapes = tuple(tuple(t.shape) for t in data[number % len(data)].values())
        yield next(
            cost
            for key, cost in budget.costs.known.items()
            if key.trained == trained and key.shapes == shapes
        )


# -- GreenTrainer --------------------------------------------------------------------------------


def loads_of(costs):
    """A chain of units; costs are (forward, own, pass, full)."""
    made = []
    for i, numbers in enumerate(costs):
        unit = Unit(f"u{i}", i, UnitKind.BLOCK, (f"u{i}",), (f"u{i}.w",), 1)
        below = () if i == 0 else (i - 1,)
        made.append(UnitLoad(unit, PassCost(*numbers), predecessors=below))
    return made


@pytest.mark.parametrize("ratio", [0.5, 0.6, 0.75, 1.0])
def test_greentrainer_selects_what_brute_force_does(ratio):
    loads = loads_of([(2, 2, 0, 2), (2, 4, 3, 5), (1, 2, 2, 3), (2, 3, 2, 4), (1, 1, 1, 2)])
    importance = {"u0": 5.0, "u1": 2.0, "u2": 3.0, "u3": 1.5, "u4": 1.0}
    full = plan_cost(loads, [FULL] * 5)
    best = 0.0
    for levels in itertools.product((FROZEN, FULL), repeat=5):
        value = sum(v for v, x in zip(importance.values(), levels, strict=True) if x is FULL)
        if FULL in levels and plan_cost(loads, levels) <= ratio * full + 1e-9:
            best = max(best, value)
    chosen = select_units(loads, importance, ratio, resolution=int(full) * 10)
    levels = [FULL if load.unit.name in chosen else FROZEN for load in loads]
    assert sum(importance[name] for name in chosen) == best
    assert plan_cost(loads, levels) <= ratio * full + 1e-9


def test_greentrainer_trains_something_where_nothing_fits():
    loads = loads_of([(2, 2, 0, 2), (2, 4, 3, 5), (2, 1, 2, 3)])
    assert select_units(loads, {"u0": 9.0, "u2": 1.0}, ratio=0.1, resolution=100) == ["u2"]


def test_greentrainer_measures_each_epoch_and_keeps_to_its_ratio(tmp_path):
    watch, budget, _ = run(tmp_path, GreenTrainer(ratio=0.7))
    whole = max(watch.trainable, key=len)
    full = {k.shapes: c for k, c in budget.costs.known.items() if k.trained == whole}
    for epoch in range(max(watch.epochs)):
        steps = [t for t, e in zip(watch.trainable, watch.epochs, strict=True) if e == epoch]
        assert steps[0] == whole
        assert len(set(steps[1:])) == 1
    others = {k: c for k, c in budget.costs.known.items() if k.trained != whole}
    assert others
    shape = next(iter(full))
    assert all(c <= 0.72 * full[shape] for k, c in others.items() if k.shapes == shape)
    assert 0 < budget.charged < full[shape]


# -- DropBP --------------------------------------------------------------------------------------


@pytest.fixture
def branches(module):
    batch = batches(1)[0]
    units = [unit for unit in discover_units(module) if unit.kind is UnitKind.BLOCK]
    return branches_of(module, units, lambda: loss_of(module, batch))


def test_each_block_has_an_attention_and_a_feed_forward_branch(module, branches):
    names = {id(p): name for name, p in module.named_parameters()}
    assert len(branches) == 2 * NUM_BLOCKS
    attention, feed_forward = ({names[id(p)] for p in b.parameters} for b in branches[:2])
    assert all(".attention." in name for name in attention)
    assert len(attention) == 10
    assert not any(".attention." in name for name in feed_forward)
    assert len(feed_forward) == 6


def test_dropping_branches_changes_gradients_and_not_the_loss(module, branches):
    batch, parameters = batches(1)[0], list(module.parameters())
    loss = loss_of(module, batch)
    whole = gradients(module, batch, parameters)
    dropper = BranchDropper(branches)
    dropper.drop([2])
    assert torch.equal(loss_of(module, batch), loss)
    found = gradients(module, batch, parameters)
    dropped = {id(p) for p in branches[2].parameters}
    for parameter, now, before in zip(parameters, found, whole, strict=True):
        name = next(n for n, p in module.named_parameters() if p is parameter)
        assert (now is None) == (id(parameter) in dropped)
        if name.startswith(("model.bert.encoder.layer.2", "model.classifier")):
            assert torch.equal(now, before)
    dropper.drop([])
    again = gradients(module, batch, parameters)
    assert all(torch.equal(a, b) for a, b in zip(again, whole, strict=True))


def test_dropping_every_branch_leaves_the_skip_path(module, branches):
    dropper = BranchDropper(branches)
    dropper.drop(range(len(branches)))
    found = gradients(module, batches(1)[0], list(module.parameters()))
    with_gradient = {
        n for (n, _), g in zip(module.named_parameters(), found, strict=True) if g is not None
    }
    assert blocks(frozenset(with_gradient)) == []
    assert any("embeddings" in name for name in with_gradient)


def test_greedy_rates_spare_sensitive_branches_and_drop_enough():
    flops = [4.0, 8.0, 4.0, 8.0]
    rates = greedy_rates([1.0, 1.0, 10.0, 0.0], flops, rate=0.5)
    assert sum(r * f for r, f in zip(rates, flops, strict=True)) >= 0.5 * sum(flops) - 1e-9
    assert rates[3] == 1.0
    assert rates[2] < min(rates[0], rates[1])
    assert greedy_rates([1.0, 1.0], [1.0, 1.0], rate=0.5) == [0.5, 0.5]


def test_dropbp_saves_its_share_and_charges_what_it_probes(tmp_path):
    uniform = run(tmp_path, DropBP(adjust_at=None), data=batches(1), limit=3e7)[1]
    adjusted = run(tmp_path, DropBP(), data=batches(1), limit=3.5e7)[1]
    full = run(tmp_path, Full(), data=batches(1), limit=1e7)[1]
    (cost,) = full.costs.known.values()
    per_step = (uniform.spent - uniform.charged) / uniform.num_steps
    # two thirds of a step are backward, half of it in the branches is dropped
    assert per_step == pytest.approx(2 / 3 * cost, rel=0.1)
    assert uniform.charged < 2 * cost
    assert adjusted.charged - uniform.charged == pytest.approx(9 * cost, rel=0.1)


def test_probing_leaves_no_trace(tmp_path, module):
    state = torch.get_rng_state()
    weights = copied(module)
    gradients(module, batches(1)[0], list(module.parameters()))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(p.grad is None for p in module.parameters())
    assert all(torch.equal(weights[n], p) for n, p in module.named_parameters())
    assert not {"log", "log_dict"} & vars(module).keys()
