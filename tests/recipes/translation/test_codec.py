"""Sentences survive the way to token ids and back; placeholders stay whole."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from recipes.translation import Codec, train_bpe
from recipes.translation.codec import mask, placeholders, unmask

BPE = train_bpe(["turn on {0} now", "Schalte {0} jetzt ein", "door open"] * 3, 320, ["de", "es"])
CODEC = Codec(source=BPE, target=BPE, starts={"de": 2, "es": 3})


@settings(max_examples=50, deadline=None)
@given(st.text().filter(lambda text: "<" not in text))
def test_no_text_is_unknown(text):
    ids = BPE(text)["input_ids"]
    assert BPE.decode(ids, skip_special_tokens=True) == text


@settings(max_examples=50, deadline=None)
@given(st.lists(st.sampled_from(["{a}", "{b_1}", "{0}", "{7}", "on", "{", "}"]), max_size=8))
def test_masking_is_undone(words):
    text = " ".join(words)
    names = placeholders(text)
    assert unmask(mask(text, names), names) == text


def test_placeholders_are_one_token_and_come_back_by_name():
    (ids,) = CODEC.encode_sources(["turn on {entity_name} ({area})"], "en-de")
    tokens = BPE.convert_ids_to_tokens(ids)
    assert [token for token in tokens if "{" in token or "}" in token] == ["{0}", "{1}"]
    source = "{area}: turn on {entity_name}"
    target = "Schalte {entity_name} in {area} ein"
    (ids,) = CODEC.encode_targets([(source, target)], "en-de")
    assert ids[0] == 2
    assert CODEC.decode(torch.tensor([ids]), [source]) == [target]


def test_the_source_is_the_same_for_all_languages_and_the_first_token_is_not():
    one, other = (CODEC.encode_sources(["door open"], task) for task in ("en-de", "en-es"))
    assert one == other
    assert CODEC.generation("en-de") == {"decoder_start_token_id": 2}
    assert CODEC.generation("en-es") == {"decoder_start_token_id": 3}


def test_learning_twice_gives_the_same_vocabulary():
    texts = ["turn the lamp on", "turn the fan off", "Schalte die Lampe ein"]
    assert train_bpe(texts, 300, ["de"]).get_vocab() == train_bpe(texts, 300, ["de"]).get_vocab()


def test_size_is_kept_and_special_tokens_come_first():
    tokenizer = train_bpe(["abcdefghijklmnop qrstuvwxyz abcdefghijklmnop"] * 5, 280, ["de"])
    assert len(tokenizer) == 280
    assert tokenizer.convert_tokens_to_ids(["<pad>", "</s>", "<2de>"]) == [0, 1, 2]


def test_saved_tokenizers_load_by_name_and_by_codec(tmp_path):
    facts = CODEC.save(tmp_path)
    text = "turn on {0}, Tür ☃"
    assert AutoTokenizer.from_pretrained(tmp_path)(text)["input_ids"] == BPE(text)["input_ids"]
    loaded = Codec.load(tmp_path, facts)
    assert loaded.source is loaded.target
    assert loaded.encode_sources([text], "en-es") == CODEC.encode_sources([text], "en-es")


@pytest.mark.parametrize("prefix", ["", "door "])
def test_prefix_is_put_before_the_source(prefix):
    codec = Codec(source=BPE, target=BPE, starts={"de": 2}, prefixes={"de": prefix})
    (ids,) = codec.encode_sources(["on"], "en-de")
    assert BPE.decode(ids, skip_special_tokens=True) == f"{prefix}on"
