"""Which parameters may train: attention only, adapters only; merged adapters compute the same."""

import lightning.pytorch as pl
import pytest
import torch
from torch import nn
from transformers import BertConfig, BertModel

from recipes._common.config import Trained
from recipes._common.restrict import merge_adapters, restrict


class Encoder(pl.LightningModule):
    def __init__(self):
        super().__init__()
        config = BertConfig(
            vocab_size=11,
            hidden_size=8,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=16,
        )
        self.encoder = BertModel(config, add_pooling_layer=False)
        self.head = nn.Linear(8, 3)

    def forward(self, ids):
        return self.head(self.encoder(ids).last_hidden_state.mean(1))


class Convolutions(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(nn.Conv2d(2, 2, 1) for _ in range(2))
        self.head = nn.Linear(2, 2)


def trained(module):
    return {name for name, p in module.named_parameters() if p.requires_grad}


def test_all_changes_nothing():
    module = Encoder()
    restrict(module, Trained.all, rank=2)
    assert trained(module) == {name for name, _ in module.named_parameters()}


def test_attention_leaves_attention_norms_and_heads():
    module = Encoder()
    restrict(module, Trained.attention, rank=2)
    names = trained(module)
    assert {"head.weight", "head.bias"} <= names
    assert "encoder.encoder.layer.0.attention.self.query.weight" in names
    assert "encoder.encoder.layer.1.output.LayerNorm.weight" in names
    assert not any("intermediate" in n or "embeddings" in n for n in names)
    assert "encoder.encoder.layer.1.output.dense.weight" not in names


def test_adapters_beside_every_linear_layer_of_the_blocks():
    module = Encoder()
    restrict(module, Trained.lora, rank=2)
    names = trained(module)
    adapters = {n for n in names if "lora_" in n}
    assert names - adapters == {"head.weight", "head.bias"}
    assert len(adapters) == 2 * 6 * 2  # A and B, six linear layers, two blocks


def test_merged_adapters_compute_what_they_did_and_leave_no_trace():
    torch.manual_seed(0)
    module = Encoder().eval()
    names = [name for name, _ in module.named_parameters()]
    restrict(module, Trained.lora, rank=2)
    for name, parameter in module.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.1)
    ids = torch.arange(10).view(2, 5)
    expected = module(ids)
    merge_adapters(module)
    assert [name for name, _ in module.named_parameters()] == names
    torch.testing.assert_close(module(ids), expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("what", [Trained.attention, Trained.lora])
def test_a_model_without_such_layers_is_refused(what):
    with pytest.raises(ValueError, match=rf"Expected a model with .* for `balancer.train={what}`"):
        restrict(Convolutions(), what, rank=2)
