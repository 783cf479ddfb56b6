"""Batches: what they hold, how they are padded, and what is left out."""

import pytest
import torch

from recipes._common import Source
from recipes.translation import Codec, TranslationData, make_mbart


def test_a_batch_holds_padded_pairs_and_starts_with_the_language(data, translator):
    tokenizer = data.codec.target
    (task, batch), *_ = next(iter(data.test_dataloader()))[0].items()
    start = tokenizer.convert_tokens_to_ids("<2de>")
    assert task == "en-de"
    assert batch["input_ids"].shape[1] % 16 == batch["labels"].shape[1] % 16 == 0
    assert (batch["decoder_input_ids"][:, 0] == start).all()
    for row, (source, target) in enumerate(batch["texts"]):
        ids = batch["input_ids"][row][batch["attention_mask"][row].bool()]
        labels = batch["labels"][row][batch["labels"][row] != -100]
        assert data.codec.decode(ids[None], [source]) == [source]
        assert data.codec.decode(labels[None], [source]) == [target]
        shifted = batch["decoder_input_ids"][row][1 : len(labels)]
        torch.testing.assert_close(shifted, labels[:-1])


def test_training_batches_are_all_pairs_of_about_one_length(data_config, model_config):
    data = TranslationData(data_config(bucket=1))
    data.setup()
    make_mbart(model_config(), data)
    loader = data.train_dataloader()["en-es"]
    batches = list(loader)
    assert sum(len(batch["labels"]) for batch in batches) == 64
    assert all("texts" not in batch for batch in batches)
    lengths = [batch["attention_mask"].sum(1) for batch in batches]
    spread = max(int(row.max() - row.min()) for row in lengths)
    everything = torch.cat(lengths)
    assert spread < everything.max() - everything.min()


def test_long_pairs_are_not_trained_on_and_long_test_sentences_are_cut(data_config, model_config):
    data = TranslationData(data_config(max_tokens=8, num_train=None))
    data.setup()
    make_mbart(model_config(), data)
    train, test = data.rows("en-de", "train"), data.rows("en-de", "test")
    assert len(train) < len(data.pairs("en-de", "train"))
    assert len(test) == 12
    end = data.codec.source.eos_token_id
    assert all(len(row["source"]) <= 8 and row["source"][-1] == end for row in test)


def test_sizes_are_at_most_what_was_asked_for(data):
    sizes = [len(data.pairs("en-de", split)) for split in ("train", "val", "test")]
    assert sizes == [64, 8, 12]


def test_no_source_is_on_two_sides(data):
    sides = [
        {source for task in data.tasks for source, _ in data.pairs(task, split)}
        for split in ("train", "val", "test")
    ]
    assert sum(map(len, sides)) == len(set.union(*sides))


def test_baselines_score_every_task(data):
    scores = data.baselines()
    assert scores["copied"]["en-de/placeholders"] == 1.0
    assert scores["word table"]["en-es/chrf"] > 2 * scores["copied"]["en-es/chrf"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param({"tasks": ["en-nl"]}, "`data.tasks` to be one of 'en-de'.*'en-nl'", id="task"),
        pytest.param({"max_tokens": 3}, "`data.max_tokens` to be .*but got 3", id="tokens"),
        pytest.param({"bucket": 0}, "`data.bucket` to be .*but got 0", id="bucket"),
        pytest.param(
            {"tasks": ["german"], "source": Source.files, "path": "."},
            "`data.tasks` to be pairs such as 'en-de', but got 'german'",
            id="no pair",
        ),
    ],
)
def test_wrong_settings_are_refused(data_config, changes, message):
    with pytest.raises(ValueError, match=message):
        TranslationData(data_config(**changes))


def test_files_that_are_too_few_to_split_are_refused(data_config, tmp_path):
    (tmp_path / "train.en").write_text("on\n")
    (tmp_path / "train.de").write_text("an\n")
    config = data_config(source=Source.files, path=str(tmp_path), tasks=["en-de"])
    with pytest.raises(ValueError, match=r"Expected en-de to have rows for .*; give more text"):
        TranslationData(config).setup()


def test_a_codec_with_two_tokenizers_pads_each_side_by_its_own(data):
    make = {"starts": {"de": 2, "es": 3}}
    data.use(Codec(source=FakeTokenizer(7), target=FakeTokenizer(9), **make))
    batch = data.collate([data.rows("en-de", "val")[i] for i in range(3)])
    assert batch["input_ids"].max() == 7
    assert batch["decoder_input_ids"].max() == 9


class FakeTokenizer:
    """One token per letter; all the same."""

    def __init__(self, pad):
        self.pad_token_id = pad

    def __call__(self, text=None, text_target=None, verbose=True):
        return {"input_ids": [[1] * len(one) for one in text or text_target]}
