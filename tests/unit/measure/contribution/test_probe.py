"""Probes tell what training a frozen unit would bring, and training does not notice them."""

from __future__ import annotations

import copy
import itertools
import math
import random
import statistics

import numpy as np
import pytest
import torch
from torch import nn

from lightning_attnbal.measure import (
    Contribution,
    debiased_decrease,
    momentum_gain,
    probe_contributions,
    update_direction,
)
from tests.unit.measure.contribution.models import NoisyLinear, distance, two_layers, unit
from tests.unit.measure.contribution.twins import CLASSES, Touchy, record, touchy_units

OPTIMIZERS = [
    pytest.param(lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9), id="SGD momentum"),
    pytest.param(lambda p: torch.optim.AdamW(p, lr=0.01, amsgrad=True), id="AdamW"),
]


def batch():
    return torch.randint(20, (7, 4)), torch.randint(CLASSES, (7,))


def losses(model, num):
    return [lambda b=b: model.loss(*b) for b in [batch() for _ in range(num)]]


class BrokenError(Exception):
    """Raised by a closure."""


def probe(model, optimizer, fails):
    """A probe of what is frozen, on batches that cost the training no random numbers."""
    states = torch.get_rng_state()
    fns = losses(model, 3)
    torch.set_rng_state(states)
    if not fails:
        values = probe_contributions(model, touchy_units()[:2], fns, [optimizer])
        assert list(values) == ["embed", "low"]
        assert all(math.isfinite(v.mean) and v.mean != 0 for v in values.values())
        return

    def broken():
        fns[0]().backward()
        raise BrokenError("after a backward pass")

    with pytest.raises(BrokenError, match="after a backward pass"):
        probe_contributions(model, touchy_units()[:2], [fns[1], broken], [optimizer])


def train(make, place, fails=False):
    """Five steps with the lower half frozen, recorded before each; probed at `place` of each."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    model = Touchy()
    optimizer = make(model.parameters())
    model.embed.requires_grad_(False)
    model.low.requires_grad_(False)[1].eval()
    records = []

    def at(here):
        if here == place:
            probe(model, optimizer, fails)
        records.append(record(model, optimizer))

    for step in range(5):
        if step == 3:  # moments exist when it is frozen again
            model.low.requires_grad_(True)
        if step == 4:
            model.low.requires_grad_(False)
        at("before forward")
        loss = model.loss(*batch())
        at("before backward")
        loss.backward()
        at("before step")
        optimizer.step()
        optimizer.zero_grad()
        records.append(record(model, optimizer))
    return records


@pytest.mark.parametrize("fails", [False, True], ids=["ends", "raises"])
@pytest.mark.parametrize("place", ["before forward", "before backward", "before step"])
@pytest.mark.parametrize("make", OPTIMIZERS)
def test_training_does_not_notice_a_probe_at_every_step(make, place, fails):
    assert train(make, place, fails) == train(make, place=None)


def test_the_record_of_training_sees_a_run_without_the_guard():
    """So that the comparison above means something."""
    model = Touchy()
    before = record(model)
    model.loss(*batch())
    after = record(model)
    different = [i for i, (a, b) in enumerate(zip(before, after, strict=True)) if a != b]
    assert len(different) >= 5


@pytest.mark.parametrize("num_losses", [2, 4])
@pytest.mark.parametrize("make", OPTIMIZERS)
def test_it_is_the_mean_over_pairs_of_the_debiased_estimate(make, num_losses):
    model, units = two_layers()
    optimizer = make(model.parameters())
    model(torch.randn(5, 3)).square().mean().backward()
    optimizer.step()
    model.requires_grad_(False)
    x = torch.randn(num_losses, 5, 3)
    found = probe_contributions(
        model, units, [lambda b=b: model(b).square().mean() for b in x], [optimizer]
    )
    for name, weight in {"0": model[0].weight, "1": model[1].weight}.items():
        twin = copy.deepcopy(model).requires_grad_(True)
        g = [torch.autograd.grad(twin(b).square().mean(), twin[int(name)].weight) for b in x]
        gain = momentum_gain(optimizer, weight)
        u = [[gain * update_direction(optimizer, weight, each) for each in those] for those in g]
        pairs = itertools.combinations(range(num_losses), 2)
        expected = statistics.mean(debiased_decrease(u[i], g[i], u[j], g[j]) for i, j in pairs)
        assert found[name].mean == pytest.approx(expected, rel=1e-4)
        assert found[name].count == num_losses - 1


def repeated(problem, num_losses):
    """What 400 probes find; the guard puts the random state back, so each needs its own seed."""
    problem.reset()
    problem.model.requires_grad_(False)
    optimizer = torch.optim.SGD(problem.model.parameters(), lr=0.1)
    fns = [problem.loss] * num_losses
    for seed in range(400):
        torch.manual_seed(seed)
        yield probe_contributions(problem.model, problem.units, fns, [optimizer])["all"]


def test_unbiased_on_a_noisy_linear_model():
    problem = NoisyLinear(offset=0.7)
    values = [found.mean for found in repeated(problem, 3)]
    assert abs(distance(values, problem.squared_slope)) <= 4


@pytest.mark.parametrize(
    ("offset", "low", "high"), [(3.0, 0.8, 1.25), (0.0, 1.7, 2.4)], ids=["signal", "noise"]
)
def test_the_uncertainty_is_that_of_repeated_probes(offset, low, high):
    """Root mean square of the standard errors over the standard deviation of the means."""
    found = list(repeated(NoisyLinear(offset=offset), 12))
    expected = statistics.stdev(c.mean for c in found)
    told = math.sqrt(statistics.mean(c.std_error**2 for c in found))
    assert low * expected <= told <= high * expected


def test_momentum_counts_in_the_long_run():
    model, units = two_layers()
    x = torch.randn(2, 5, 3)
    fns = [lambda b=b: model(b).square().mean() for b in x]
    plain, momentum = (
        probe_contributions(
            model, units, fns, [torch.optim.SGD(model.parameters(), lr=0.1, momentum=m)]
        )
        for m in (0.0, 0.9)
    )
    assert momentum["0"].mean == pytest.approx(10 * plain["0"].mean, rel=1e-5)


def test_only_the_given_units_are_thawed():
    model, units = two_layers()
    model.requires_grad_(False)
    thawed = []

    def loss():
        thawed.append([p.requires_grad for p in model.parameters()])
        return model(torch.randn(5, 3)).square().mean()

    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    assert list(probe_contributions(model, units[1:], [loss, loss], [optimizer])) == ["1"]
    assert thawed == [[False, True]] * 2


def test_a_tied_parameter_counts_once_with_all_its_uses():
    model = Touchy().requires_grad_(False).eval()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    fns = losses(model, 2)
    values = [
        probe_contributions(model, [unit("low", *names)], fns, [optimizer])["low"].mean
        for names in (["low.0.weight", "tied.weight"], ["tied.weight"])
    ]
    assert values[0] == pytest.approx(values[1], rel=1e-6)


def test_units_that_no_loss_reaches_or_no_optimizer_holds_are_left_out():
    model, units = two_layers()
    model.requires_grad_(False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    cut = lambda: model[1](model[0](torch.randn(5, 3)).detach()).square().mean()  # noqa: E731
    assert list(probe_contributions(model, units, [cut, cut], [optimizer])) == ["1"]
    head = torch.optim.SGD(model[1].parameters(), lr=0.1)
    whole = lambda: model(torch.randn(5, 3)).square().mean()  # noqa: E731
    assert list(probe_contributions(model, units, [whole, whole], [head])) == ["1"]
    assert probe_contributions(model, units[:1], [cut, cut], [optimizer]) == {}
    assert probe_contributions(model, units[:1], [whole, whole], [head]) == {}


def test_a_unit_that_one_loss_misses_counts_zero_there():
    model, units = two_layers()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    whole = lambda: model(torch.ones(5, 3)).square().mean()  # noqa: E731
    head = lambda: model[1](torch.ones(5, 4)).square().mean()  # noqa: E731
    assert probe_contributions(model, units, [whole, head], [optimizer])["0"].mean == 0.0
    assert probe_contributions(model, units, [whole, head, whole], [optimizer])["0"].mean > 0


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_it_works_where_gradients_are_off(context):
    model, units = two_layers()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    x = torch.randn(5, 3)
    fns = [lambda: model(x).square().mean()] * 2
    expected = probe_contributions(model, units, fns, [optimizer])
    with context():
        assert probe_contributions(model, units, fns, [optimizer]) == expected
    model(x).sum().backward()
    optimizer.step()


def test_nan_is_handed_on():
    model, units = two_layers()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    fns = [lambda s=s: (s * model(torch.ones(5, 3))).sum() for s in (1.0, math.nan)]
    assert math.isnan(probe_contributions(model, units, fns, [optimizer])["0"].mean)


def test_one_loss_is_refused():
    model, units = two_layers()
    with pytest.raises(ValueError, match="`loss_fns` to hold at least 2 losses, but got 1"):
        probe_contributions(model, units, [lambda: torch.zeros(())], [])


@pytest.mark.parametrize(
    ("loss", "found"), [(torch.zeros(3), r"\(3,\)"), (1.0, "float")], ids=["vector", "number"]
)
def test_losses_must_be_scalar(loss, found):
    model, units = two_layers()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(ValueError, match=f"to return a scalar loss, but got {found}"):
        probe_contributions(model, units, [lambda: loss] * 2, [optimizer])


def test_an_embedding_with_sparse_gradients():
    model = nn.Embedding(5, 2, sparse=True).requires_grad_(False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    fns = [lambda i=i: model(torch.tensor(i)).sum() for i in ([0, 1], [1, 2, 2])]
    found = probe_contributions(model, [unit("all", "weight")], fns, [optimizer])
    assert found == {"all": Contribution(2.0, math.inf, 1)}
