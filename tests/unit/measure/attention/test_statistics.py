"""The figures of a head have known values in known cases."""

import pytest
import torch
from torch.nn import functional

from lightning_attnbal.measure.attention import attention_entropy, head_importance


@pytest.mark.parametrize("num_keys", [2, 7, 64])
def test_uniform_attention_is_one_and_one_hot_attention_is_zero(num_keys):
    uniform = torch.full((3, num_keys), 1 / num_keys)
    one_hot = functional.one_hot(torch.arange(num_keys)).float()
    torch.testing.assert_close(attention_entropy(uniform), torch.ones(3))
    assert torch.equal(attention_entropy(one_hot), torch.zeros(num_keys))


def test_two_of_many_keys():
    weights = torch.tensor([0.5, 0.5, 0.0, 0.0])
    assert attention_entropy(weights).item() == pytest.approx(0.5)  # ln 2 / ln 4


def test_only_visible_keys_count():
    weights = torch.tensor([[0.5, 0.5, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0]])
    visible = torch.tensor([[True, True, False, False], [True, False, False, False]])
    found = attention_entropy(weights, visible)
    assert found[0].item() == pytest.approx(1.0)
    assert found[1].isnan()  # one key leaves no choice


def test_importance_is_the_mean_absolute_product():
    outputs = torch.randn(3, 2, 5, 4)
    gradients = torch.randn(3, 2, 5, 4)
    by_hand = [
        sum(abs(float(outputs[b, h, n] @ gradients[b, h, n])) for b in range(3) for n in range(5))
        / 15
        for h in range(2)
    ]
    assert head_importance(outputs, gradients).tolist() == pytest.approx(by_hand)
