"""The text recipe: what a batch holds, what is computed once, what is saved."""

import json

import lightning.pytorch as pl
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel, AutoTokenizer, T5Config

from lightning_attnbal.callbacks import AttentionBalancer, TaskSettings
from recipes._common.config import Source
from recipes._fetch import FetchError
from recipes.text import TextData, TextDataConfig, TextEncoderConfig, load_predictor, make_encoder

TASKS = ["rating", "recommended", "department", "class"]


def make_data(**keys):
    sizes = {"num_train": 24, "num_val": 8, "num_test": 10, "batch_size": 8, "max_tokens": 16}
    asked = TextDataConfig(source=Source.synthetic, **{"tasks": TASKS, **sizes, **keys})
    data = TextData(asked)
    data.setup()
    return data


@pytest.fixture(scope="module")
def data():
    return make_data()


@pytest.fixture
def module(encoder, data):
    torch.manual_seed(0)
    return make_encoder(TextEncoderConfig(name=str(encoder), lr=1e-3), data)


@pytest.fixture
def count_calls(module):
    calls = []
    module.encoder.register_forward_hook(lambda *_: calls.append(1))
    return calls


def make_trainer(tmp_path, **options):
    options = {"max_epochs": 1, "logger": False, "enable_checkpointing": False, **options}
    bars = {"enable_progress_bar": False, "enable_model_summary": False}
    return pl.Trainer(accelerator="cpu", default_root_dir=tmp_path, **bars, **options)


def test_each_task_has_a_loader_and_its_classes(data):
    assert {t: len(loader) for t, loader in data.train_dataloader().items()} == dict.fromkeys(
        TASKS, 3
    )
    assert data.class_counts == {"rating": 5, "recommended": 2, "department": 3, "class": 5}
    for batch in data.loader("rating", "train"):
        assert batch["input_ids"].shape == batch["attention_mask"].shape == (8, 16)


def test_all_tasks_are_tested_on_texts_that_are_encoded_once(tmp_path, module, data, count_calls):
    (scores,) = make_trainer(tmp_path).test(module, datamodule=data, verbose=False)
    assert len(count_calls) == 2  # batches of 8 and 2
    assert {key.split("/")[1] for key in scores} == set(TASKS)


def test_a_step_of_all_tasks_encodes_their_texts_once(tmp_path, module, data, count_calls):
    trainer = make_trainer(tmp_path, limit_train_batches=1, limit_val_batches=0)
    trainer.fit(module, datamodule=data)
    assert len(count_calls) == 1


def test_tasks_that_lack_labels_have_rows_of_their_own(tmp_path):
    lines = ["text,x,y", *(f"words {i},{i % 2},{i % 3 if i % 2 else ''}" for i in range(40))]
    (tmp_path / "mine.csv").write_text("\n".join(lines))
    keys = {"tasks": ["x", "y"], "num_train": None, "num_test": None}
    files = TextDataConfig(source=Source.files, path=str(tmp_path / "mine.csv"), num_val=8, **keys)
    data = TextData(files)
    data.setup()
    assert not data.same_samples
    assert len(data.rows("x", "train")) == 24
    assert len(data.rows("y", "train")) < 24
    tested = [tuple(batch) for batch, _, _ in iter(data.test_dataloader())]
    assert tested == [("x",), ("y",)]


def test_a_split_that_has_no_label_is_refused(tmp_path):
    lines = ["text,x,y", *(f"words {i},{i % 2},{i if i < 2 else ''}" for i in range(40))]
    (tmp_path / "mine.csv").write_text("\n".join(lines))
    asked = TextDataConfig(
        source=Source.files, path=str(tmp_path / "mine.csv"), tasks=["x", "y"], num_val=8
    )
    with pytest.raises(ValueError, match=r"Expected \w+ rows with a label of task 'y'"):
        TextData(asked).setup()


def test_the_saved_encoder_loads_in_plain_transformers(tmp_path, module, data):
    module.save_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    plain = AutoModel.from_pretrained(tmp_path, add_pooling_layer=False).eval()
    heads = load_file(tmp_path / "heads.safetensors")
    batch = tokenizer(["a fine dress"], return_tensors="pt")
    pooled = plain(**batch).last_hidden_state.mean(1)
    logits = pooled @ heads["class.weight"].T + heads["class.bias"]
    (record,) = load_predictor(tmp_path)(["a fine dress"], task="class", top=5)
    found = {one["label"]: one["probability"] for one in record["class"]}
    expected = dict(zip(data.class_names["class"], logits.softmax(-1)[0].tolist(), strict=True))
    assert found == pytest.approx(expected, abs=1e-5)
    assert json.loads(json.dumps(record)) == record


def test_the_predictor_pads_and_answers_all_tasks_in_order(tmp_path, module):
    module.save_pretrained(tmp_path)
    predict = load_predictor(tmp_path)
    texts = ["a fine dress", "bad " * 40, "store"]
    records = predict(texts, top=2)
    assert [record["input"] for record in records] == texts
    assert list(records[0]) == ["input", *TASKS]
    assert [len(one) for one in records[1].values() if isinstance(one, list)] == [2, 2, 2, 2]
    alone = predict(["store"], task="rating", top=1)[0]["rating"][0]
    assert alone["probability"] == pytest.approx(records[2]["rating"][0]["probability"], abs=1e-5)
    with pytest.raises(ValueError, match=r"`task` to be one of 'rating', .* but got 'colour'"):
        predict(["store"], task="colour")


def test_heads_of_another_shape_are_refused(tmp_path, module):
    module.save_pretrained(tmp_path)
    card = json.loads((tmp_path / "recipe.json").read_text())
    card["tasks"]["class"].append("one more")
    (tmp_path / "recipe.json").write_text(json.dumps(card))
    with pytest.raises(RuntimeError, match=r"size mismatch for class.weight"):
        load_predictor(tmp_path)


def test_baselines_are_scored_as_the_model_is(data):
    scores = data.baselines()
    assert list(scores) == ["majority", "tf-idf"]
    labels = data.rows("recommended", "test").labels
    most = int(data.rows("recommended", "train").labels.bincount().argmax())
    right = float((labels == most).float().mean())
    assert scores["majority"]["recommended/accuracy"] == pytest.approx(right)


def test_the_balancer_keeps_within_its_budget(tmp_path, module, data):
    settings = TaskSettings(same_samples=data.same_samples)
    balancer = AttentionBalancer("60%", tasks=settings)
    trainer = make_trainer(tmp_path, max_epochs=2, callbacks=[balancer], limit_val_batches=0)
    trainer.fit(module, datamodule=data)
    assert 0 < balancer.spent.amount <= balancer.limit.amount


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"tasks": []}, "`data.tasks` to name one task or several"),
        ({"tasks": ["type"]}, r"names such as 'type', .*data.label_columns=\{mine:type\}"),
        ({"tasks": ["a.b"]}, r"names such as 'a.b'"),
        ({"max_tokens": 2}, r"`data.max_tokens` to be in \[3, inf\)"),
        ({"bucket": 0}, r"`data.bucket` to be in \[1, inf\)"),
    ],
    ids=["no task", "clash", "dot", "tokens", "bucket"],
)
def test_values_out_of_range_are_refused(keys, message):
    with pytest.raises(ValueError, match=message):
        TextData(TextDataConfig(source=Source.synthetic, **{"tasks": TASKS, **keys}))


def test_an_unreachable_encoder_names_the_packaged_one(tmp_path, data):
    name = str(tmp_path / "nowhere" / "deep" / "model")
    with pytest.raises(FetchError, match=r"packaged MiniLM \(`model.name=null`\)"):
        make_encoder(TextEncoderConfig(name=name, lr=1e-3), data)


def test_an_encoder_decoder_is_refused(tmp_path, data):
    T5Config(num_layers=1).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="is an encoder-decoder"):
        make_encoder(TextEncoderConfig(name=str(tmp_path), lr=1e-3), data)
