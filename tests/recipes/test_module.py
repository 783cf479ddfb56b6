"""The classifier is a plain transformers model whose token logits are averaged."""

import pytest
import torch
from transformers import AutoModelForTokenClassification, BertConfig

from recipes.text import TextClassifier, packaged_encoder


@pytest.fixture
def batch():
    mask = torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1]])
    return {"input_ids": torch.randint(1, 50, (2, 4)) * mask, "attention_mask": mask}


def test_checkpoint_loads_in_plain_transformers_with_the_same_logits(encoder, batch, tmp_path):
    module = TextClassifier(encoder, num_classes=3).eval()
    module.save_pretrained(tmp_path / "saved")
    plain = AutoModelForTokenClassification.from_pretrained(tmp_path / "saved").eval()
    tokens = plain(**batch).logits
    expected = torch.stack([tokens[0, :3].mean(0), tokens[1].mean(0)])
    torch.testing.assert_close(module(**batch), expected)
    assert (tmp_path / "saved" / "model.safetensors").is_file()


def test_logits_are_a_linear_head_on_mean_pooled_states(encoder, batch):
    module = TextClassifier(encoder, num_classes=3).eval()
    hidden = module.model.bert(**batch).last_hidden_state
    pooled = torch.stack([hidden[0, :3].mean(0), hidden[1].mean(0)])
    torch.testing.assert_close(module(**batch), module.model.classifier(pooled))


def test_padding_does_not_change_the_logits(encoder, batch):
    module = TextClassifier(encoder, num_classes=3).eval()
    padded = {name: torch.nn.functional.pad(value, (0, 12)) for name, value in batch.items()}
    torch.testing.assert_close(module(**padded), module(**batch))


def test_every_parameter_is_in_the_optimizer(encoder):
    module = TextClassifier(encoder, num_classes=3, lr=2e-4, weight_decay=0.1)
    (group,) = module.configure_optimizers().param_groups
    assert {id(p) for p in group["params"]} == {id(p) for p in module.parameters()}
    assert (group["lr"], group["weight_decay"]) == (2e-4, 0.1)


def test_packaged_encoder_has_six_layers():
    assert BertConfig.from_pretrained(packaged_encoder()).num_hidden_layers == 6


def test_learning_rate_out_of_range_is_refused(encoder):
    with pytest.raises(ValueError, match=r"Expected `lr` to be in \(0, inf\), but got 0"):
        TextClassifier(encoder, num_classes=3, lr=0.0)
