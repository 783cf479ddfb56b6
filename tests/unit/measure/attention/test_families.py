"""Every supported family is seen, and not disturbed."""

import pytest
import torch

from lightning_attnbal.measure.attention import AttentionMeter, measure_attention
from tests.families import FAMILIES

WITH_ATTENTION = {
    "bert": 3,
    "distilbert": 3,
    "gpt2": 3,
    "llama": 3,
    "t5": 6,
    "marian": 6,
    "bart": 6,
    "hf_vit": 3,
    "timm_vit": 3,
    "timm_swin": 4,
    "tv_vit": 3,
    "tv_swin": 4,
    "nn_transformer_encoder": 3,
    "nn_transformer_decoder": 6,
    "nn_transformer": 6,
    "lstm_attention": 1,
}
WITHOUT = ("timm_convnext", "tv_resnet18", "mlp_sequential", "cnn_sequential")


@pytest.mark.parametrize("family", WITH_ATTENTION)
def test_outputs_and_gradients_are_the_same_to_the_last_bit(family):
    chosen, results = FAMILIES[family], []
    for is_watched in (False, True):
        model, batch = chosen.build(), chosen.batch()
        torch.manual_seed(3)
        meter = AttentionMeter(model)
        if is_watched:
            meter.start()
        loss = chosen.loss(model, batch)
        meter.end_forward()
        loss.backward()
        meter.stop()
        results.append([loss, *(p.grad for p in model.parameters() if p.grad is not None)])
        assert all(not m._forward_hooks and not m._forward_pre_hooks for m in model.modules())
    seen = meter.compute()
    assert len(seen.entropy) == len(seen.importance) == WITH_ATTENTION[family]
    assert all(0 <= x <= 1 for heads in seen.entropy.values() for x in heads)
    assert all(map(torch.equal, *results))


@pytest.mark.parametrize("family", WITHOUT)
def test_models_without_attention_say_nothing(family):
    chosen = FAMILIES[family]
    model, batch = chosen.build(), chosen.batch()
    seen = measure_attention(model, lambda: chosen.loss(model, batch))
    assert (seen.entropy, seen.importance) == ({}, {})
