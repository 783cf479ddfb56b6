"""A tiny encoder with its tokenizer, so that recipes run in seconds."""

import pytest
from transformers import AutoTokenizer, BertConfig, BertModel

from recipes.text import packaged_encoder


@pytest.fixture
def encoder(tmp_path):
    """Folder of a BERT of width 8 with random weights, with the packaged tokenizer."""
    folder = tmp_path / "encoder"
    tokenizer = AutoTokenizer.from_pretrained(packaged_encoder())
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=16,
    )
    BertModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
