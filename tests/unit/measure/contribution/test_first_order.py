"""The debiased estimate has the population value as its mean; the usual ones don't."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from lightning_attnbal.measure import (
    cross_decrease,
    debiased_decrease,
    fisher_trace,
    gradient_norm,
    update_direction,
)
from tests.unit.measure.contribution.models import NoisyLinear, distance

SEEDS = 1500


def estimates(draw, direction=lambda g: g):
    """Per seed (debiased, gradient · update, gradient norm) from two independent gradients."""
    for _ in range(SEEDS):
        a, b = draw(), draw()
        u_a, u_b = [direction(g) for g in a], [direction(g) for g in b]
        yield debiased_decrease(u_a, a, u_b, b), cross_decrease(u_a, a), gradient_norm(a)


class Quadratic:
    """½ (w − w*)ᵀ H (w − w*) at distance `offset` from its optimum, gradients with noise σ."""

    def __init__(self, offset: float, noise: float = 1.0) -> None:
        root = torch.randn(8, 8) / 3
        self.slope = root @ root.T @ torch.full((8,), offset)
        self.noise = noise

    def draw(self) -> list[torch.Tensor]:
        g = self.slope + self.noise * torch.randn(8)
        return [g[:3], g[3:].reshape(5, 1)]


def test_on_a_quadratic_the_debiased_estimate_is_unbiased_and_the_others_are_not():
    problem = Quadratic(offset=0.5)
    truth = problem.slope.square().sum().item()
    debiased, plain, norm = zip(*estimates(problem.draw), strict=True)
    assert abs(distance(debiased, truth)) <= 4
    assert distance(plain, truth) > 4
    assert abs(distance(plain, truth + 8)) <= 4
    assert distance(norm, math.sqrt(truth)) > 4


def test_on_a_noisy_linear_model_the_debiased_estimate_is_unbiased_and_the_others_are_not():
    problem = NoisyLinear(offset=0.7)
    problem.reset()
    debiased, plain, norm = zip(*estimates(problem.gradient), strict=True)
    assert abs(distance(debiased, problem.squared_slope)) <= 4
    assert distance(plain, problem.squared_slope) > 4
    assert abs(distance(plain, problem.squared_norm)) <= 4
    assert distance(norm, math.sqrt(problem.squared_slope)) > 4


def test_without_noise_all_agree():
    problem = Quadratic(offset=0.5, noise=0.0)
    debiased, plain, norm = next(estimates(problem.draw))
    assert debiased == pytest.approx(plain, rel=1e-6)
    assert debiased == pytest.approx(norm**2, rel=1e-6)


def test_under_adam_without_state_the_mean_is_that_of_the_sign():
    """E sign(g) = erf(μ / (σ √2)) for a normal g, so E⟨u(g_A), g_B⟩ = Σ μ erf(μ / (σ √2))."""
    problem = Quadratic(offset=0.5)
    weight = nn.Parameter(torch.zeros(8))
    optimizer = torch.optim.Adam([weight], eps=1e-12)
    draws = ([torch.cat([x.flatten() for x in problem.draw()])] for _ in range(2 * SEEDS))
    found = estimates(lambda: next(draws), lambda g: update_direction(optimizer, weight, g))
    debiased, plain, _ = zip(*found, strict=True)
    truth = (problem.slope * torch.erf(problem.slope / math.sqrt(2))).sum().item()
    assert abs(distance(debiased, truth)) <= 4
    assert distance(plain, truth) > 4


@pytest.mark.parametrize("problem", [Quadratic, NoisyLinear], ids=lambda kind: kind.__name__)
def test_at_the_optimum_the_debiased_estimate_has_no_sign_and_the_norm_stays(problem):
    problem = problem(offset=0.0)
    if isinstance(problem, NoisyLinear):
        problem.reset()
    draw = problem.gradient if isinstance(problem, NoisyLinear) else problem.draw
    debiased, plain, norm = zip(*estimates(draw), strict=True)
    assert abs(distance(debiased, 0.0)) <= 4
    assert abs(distance([float(v > 0) for v in debiased], 0.5)) <= 4
    assert min(plain) > 0
    assert min(norm) > 0


def test_it_is_symmetric_and_exact_over_several_tensors():
    a, b = (
        [torch.tensor([1.0, 2.0]), torch.tensor(3.0)],
        [torch.tensor([4.0, -1.0]), torch.tensor(2.0)],
    )
    u_a, u_b = [2 * x for x in a], [x + 1 for x in b]
    expected = (2 * (4 - 2 + 6) + (5 * 1 + 0 * 2 + 3 * 3)) / 2
    assert debiased_decrease(u_a, a, u_b, b) == pytest.approx(expected)
    assert debiased_decrease(u_b, b, u_a, a) == pytest.approx(expected)


def test_it_is_the_first_order_decrease_on_the_other_batch():
    model = nn.Linear(6, 1).double()
    here, there = torch.randn(2, 5, 6, dtype=torch.float64)
    parameters = list(model.parameters())
    update = torch.autograd.grad(model(here).square().mean(), parameters)
    loss = model(there).square().mean()
    gradient = torch.autograd.grad(loss, parameters, retain_graph=True)
    with torch.no_grad():
        for p, u in zip(parameters, update, strict=True):
            p.sub_(1e-6 * u)
    decrease = (loss - model(there).square().mean()).item()
    assert 1e-6 * cross_decrease(update, gradient) == pytest.approx(decrease, rel=1e-4)


def test_half_precision_neither_overflows_nor_vanishes():
    large, small = torch.full((4,), 3e4).half(), torch.full((4,), 6e-8).half()
    assert cross_decrease([large], [large]) == pytest.approx(4 * 3e4**2, rel=1e-2)
    assert cross_decrease([small], [small]) > 0
    assert fisher_trace([large]) == pytest.approx(4 * 3e4**2, rel=1e-2)


def test_sparse_gradients_count():
    embedding = nn.Embedding(5, 2, sparse=True)
    embedding(torch.tensor([1, 1, 3])).sum().backward()
    assert fisher_trace([embedding.weight.grad]) == 2 * 4 + 2
    assert cross_decrease([torch.ones(5, 2)], [embedding.weight.grad]) == 6


def test_no_tensors_are_worth_nothing():
    assert cross_decrease([], []) == 0.0


@pytest.mark.parametrize(
    ("update", "gradient"),
    [
        pytest.param([torch.ones(2)], [torch.ones(2, 1)], id="broadcastable"),
        pytest.param([torch.ones(2)], [], id="number"),
    ],
)
def test_shapes_must_pair_up(update, gradient):
    with pytest.raises(ValueError, match="`update` and `gradient` to have the same shapes"):
        cross_decrease(update, gradient)
