"""The comparison measures, against closed forms."""

from __future__ import annotations

import math

import pytest
import torch

from lightning_attnbal.measure import (
    activation_change,
    fisher_trace,
    gradient_norm,
    output_entropy,
    plasticity,
    relative_gradient_change,
)


def test_norms_equal_those_of_torch_over_all_parameters_at_once():
    gradients = [torch.randn(3, 4), torch.randn(5)]
    flat = torch.cat([g.flatten() for g in gradients])
    assert gradient_norm(gradients) == pytest.approx(flat.norm().item())
    assert gradient_norm(gradients, order=1) == pytest.approx(flat.norm(p=1).item())
    assert fisher_trace(gradients) == pytest.approx(flat.norm().item() ** 2)


def test_norm_order_is_checked():
    with pytest.raises(ValueError, match=r"`order` to be in \[1, 2\], but got 3"):
        gradient_norm([], order=3)


def test_fisher_of_a_batch_is_the_slope_and_the_variance_of_samples_over_their_number():
    samples = torch.randn(4000, 16, 3) + torch.tensor([1.0, 0.0, -0.5])
    mean = sum(fisher_trace([batch.mean(0)]) for batch in samples) / len(samples)
    assert mean == pytest.approx(1.25 + 3 / 16, rel=0.02)


@pytest.mark.parametrize(
    ("previous", "current", "change"),
    [(4.0, 3.0, 0.25), (3.0, 4.0, 1 / 3), (2.0, 2.0, 0.0), (0.0, 0.0, 0.0), (0.0, 1.0, math.inf)],
)
def test_relative_gradient_change(previous, current, change):
    assert relative_gradient_change(previous, current) == pytest.approx(change)


def test_norms_must_not_be_negative():
    with pytest.raises(ValueError, match=r"norms to be in \[0, inf\), but got 1.0 and -1.0"):
        relative_gradient_change(1.0, -1.0)


def test_activation_change():
    a = torch.randn(4, 5, 6)
    assert activation_change(a, a) == 0.0
    assert activation_change(a, 1.5 * a) == pytest.approx(0.5)
    assert activation_change(a, -a) == pytest.approx(2.0)
    assert activation_change(torch.zeros(2), torch.zeros(2)) == 0.0
    assert activation_change(torch.zeros(2), torch.ones(2)) == math.inf
    with pytest.raises(ValueError, match="`before` and `after` to have the same shapes"):
        activation_change(a, a[:2])


def test_plasticity_of_orthogonal_against_equal_samples():
    """G = 1 against G_ref = 1 / √B everywhere."""
    for size in (2, 5, 9):
        root = 1 / math.sqrt(size)
        expected = (size * (1 - root) ** 2 + (size**2 - size) * root**2) / size**2
        found = plasticity(torch.eye(size), torch.ones(size, 3, 2))
        assert found == pytest.approx(expected, rel=1e-5)


def test_plasticity_is_blind_to_rotation_and_scale_and_bounded():
    a = torch.randn(6, 4)
    rotation = torch.linalg.qr(torch.randn(4, 4)).Q
    assert plasticity(3 * a @ rotation, a) == pytest.approx(0.0, abs=1e-10)
    assert 0 < plasticity(torch.randn(6, 4), a) <= 4 / 6
    assert plasticity(torch.zeros(6, 4), torch.zeros(6, 4)) == 0.0


def test_plasticity_of_numbers_per_sample_takes_them_as_one_feature():
    assert plasticity(torch.tensor([1.0, -2.0]), torch.tensor([[2.0], [-4.0]])) == 0.0


@pytest.mark.parametrize(
    ("activation", "message"),
    [
        (torch.tensor(1.0), r"batch dimension of at least 1, but got shape \(\)"),
        (torch.ones(0, 3), r"batch dimension of at least 1, but got shape \(0, 3\)"),
        (torch.ones(3, 3), "`activation` and `reference` to have the same shapes"),
    ],
    ids=["scalar", "empty", "other batch size"],
)
def test_plasticity_needs_the_same_batch(activation, message):
    with pytest.raises(ValueError, match=message):
        plasticity(activation, torch.ones(2, 3))


@pytest.mark.parametrize("scale", [0.1, 1.0, 30.0])
def test_entropy_equals_that_of_torch_distributions(scale):
    logits = scale * torch.randn(7, 3, 5)
    expected = torch.distributions.Categorical(logits=logits).entropy().mean() / math.log(5)
    assert output_entropy(logits) == pytest.approx(expected.item(), rel=1e-5)
    assert output_entropy(logits.movedim(-1, 1), dim=1) == pytest.approx(expected.item(), rel=1e-5)


def test_entropy_ends_of_the_range():
    assert output_entropy(torch.zeros(2, 3)) == pytest.approx(1.0)
    assert output_entropy(torch.tensor([[0.0, -math.inf, -math.inf]])) == 0.0
    assert math.isnan(output_entropy(torch.tensor([[0.0, math.nan]])))
    with pytest.raises(ValueError, match="at least 2 classes, but got 1"):
        output_entropy(torch.zeros(3, 1))
