"""Models learn, are divided into units, keep to a budget, and load elsewhere."""

import lightning.pytorch as pl
import pytest
import torch
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from lightning_attnbal import AttentionBalancer
from lightning_attnbal.callbacks import TaskSettings
from lightning_attnbal.measure import discover_units
from recipes._fetch import FetchError
from recipes.translation import (
    HubConfig,
    MiniLMConfig,
    TranslationData,
    load_predictor,
    make_hub,
    make_mbart,
    make_minilm,
)

pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers")


def fit(module, data, *callbacks, epochs=1):
    trainer = pl.Trainer(
        max_epochs=epochs,
        callbacks=list(callbacks),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        accelerator="cpu",
    )
    trainer.fit(module, datamodule=data)
    return trainer


@pytest.fixture
def minilm(data, encoder):
    config = MiniLMConfig(
        lr=1e-3,
        encoder=str(encoder),
        vocab_size=360,
        width=16,
        decoder_layers=2,
        heads=2,
        ffn=32,
        dropout=0.0,
        num_beams=2,
    )
    return make_minilm(config, data)


def test_loss_is_transformers_own(translator, data):
    batch = data.collate([data.rows("en-de", "train")[i] for i in range(4)])
    translator.eval()
    torch.manual_seed(0)
    own = translator.model(
        input_ids=batch["input_ids"],
        attention_mask=batch["attention_mask"],
        decoder_input_ids=batch["decoder_input_ids"],
        labels=batch["labels"],
    ).loss
    logits = translator(batch)
    plain = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch["labels"].flatten())
    torch.testing.assert_close(plain, own)
    smooth = translator.losses({"en-de": batch, "en-es": batch})
    everything = -logits.log_softmax(-1).mean(-1)[batch["labels"] != -100].mean()
    torch.testing.assert_close(smooth["en-de"], 0.9 * own + 0.1 * everything)
    torch.testing.assert_close(smooth["en-es"], smooth["en-de"])


def test_embeddings_are_one_table_with_the_variance_of_the_width(translator):
    model = translator.model
    assert model.lm_head.weight is model.model.encoder.embed_tokens.weight
    assert model.lm_head.weight is model.model.decoder.embed_tokens.weight
    assert model.lm_head.weight.std().item() == pytest.approx(16**-0.5, rel=0.1)


@pytest.mark.parametrize("kind", ["translator", "minilm"])
def test_every_layer_of_both_sides_is_a_unit(kind, request):
    names = [unit.name for unit in discover_units(request.getfixturevalue(kind))]
    layers = [name for name in names if ".layers." in name or ".layer." in name]
    assert len([name for name in layers if "decoder." in name]) == 2
    assert len(layers) == 4


@pytest.mark.parametrize("kind", ["translator", "minilm"])
def test_tasks_take_turns_within_the_budget(kind, request, data):
    balancer = AttentionBalancer("80%", tasks=TaskSettings())
    fit(request.getfixturevalue(kind), data, balancer)
    assert balancer.spent.amount <= balancer.limit.amount
    assert set(balancer.shares) == {"en-de", "en-es"}


def test_a_tiny_model_learns_the_made_up_language(data_config, model_config, tmp_path):
    data = TranslationData(data_config(tasks=["en-es"], num_train=256, batch_size=16))
    data.setup()
    pl.seed_everything(0, verbose=False)
    config = model_config(width=32, ffn=64, label_smoothing=0.0, encoder_layers=1, decoder_layers=1)
    translator = make_mbart(config, data)
    trainer = fit(translator, data, epochs=12)
    (scores,) = trainer.test(translator, datamodule=data, verbose=False)
    assert scores["test/en-es/chrf"] > data.baselines()["copied"]["en-es/chrf"] + 20
    assert sorted(key.rpartition("/")[2] for key in scores) == [
        "bleu",
        "chrf",
        "loss",
        "placeholders",
    ]


@pytest.mark.parametrize("kind", ["translator", "minilm"])
def test_what_is_saved_loads_in_transformers_and_translates_alike(kind, request, data, tmp_path):
    module = request.getfixturevalue(kind).eval()
    module.save_pretrained(tmp_path)
    loaded = AutoModelForSeq2SeqLM.from_pretrained(tmp_path).eval()
    batch = data.collate([data.rows("en-de", "test")[i] for i in range(4)])
    names = ("input_ids", "attention_mask", "decoder_input_ids")
    with torch.no_grad():
        torch.testing.assert_close(
            loaded(**{name: batch[name] for name in names}).logits, module(batch)
        )
    assert len(AutoTokenizer.from_pretrained(tmp_path)) == len(data.codec.target)
    sources = [source for source, _ in batch["texts"]]
    expected = [best for (best,) in module.search(batch, sources, "en-es")]
    predictor = load_predictor(tmp_path)
    records = predictor(sources, task="en-es", top=1)
    assert [record["translation"] for record in records] == expected


def test_predictor_gives_the_beams_and_knows_its_tasks(translator, tmp_path):
    translator.save_pretrained(tmp_path)
    predictor = load_predictor(tmp_path)
    (record,) = predictor(["lamp {name}"])
    assert (record["source"], record["task"]) == ("lamp {name}", "en-de")
    assert len(record["others"]) == 1
    with pytest.raises(ValueError, match="`task` to be one of 'en-de', 'en-es', but got 'en-nl'"):
        predictor(["lamp"], task="en-nl")
    assert predictor([]) == []


def test_the_made_folder_is_needed(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"it has no recipe\.json"):
        load_predictor(tmp_path)


def test_a_pretrained_model_is_trained_on_by_name(translator, data, tmp_path):
    translator.save_pretrained(tmp_path)
    module = make_hub(HubConfig(lr=1e-3, name=str(tmp_path), num_beams=1), data)
    trainer = fit(module, data)
    trainer.test(module, datamodule=data, verbose=False)
    module.save_pretrained(tmp_path / "again")
    (record,) = load_predictor(tmp_path / "again")(["lamp"])
    assert record["others"] == []


def test_language_codes_and_prefixes_reach_a_pretrained_model(translator, data, tmp_path):
    translator.save_pretrained(tmp_path)
    codes = {"en": "<2de>", "de": "<2de>", "es": "<2es>"}
    config = HubConfig(lr=1e-3, name=str(tmp_path), prefixes={"de": "lamp "}, codes=codes)
    search = make_hub(config, data).search
    assert search.codec.generation("en-es")["forced_bos_token_id"] == 3
    one, other = (search.codec.encode_sources(["door"], task)[0] for task in ("en-de", "en-es"))
    assert len(one) > len(other)


def test_a_model_that_is_not_there_is_one_error(data, tmp_path):
    config = HubConfig(lr=1e-3, name=str(tmp_path / "nothing"))
    with pytest.raises(FetchError, match=r"Could not load .*nothing.*model=translation_mbart"):
        make_hub(config, data)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        pytest.param(
            {"width": 15}, "`model.width` to be a multiple of .*=2, but got 15", id="width"
        ),
        pytest.param({"vocab_size": 299}, r"`model.vocab_size` to be .*but got 299", id="vocab"),
        pytest.param({"dropout": 1.0}, r"`model.dropout` to be .*but got 1.0", id="dropout"),
        pytest.param({"num_beams": 0}, r"`model.num_beams` to be .*but got 0", id="beams"),
        pytest.param({"label_smoothing": 1.0}, "`model.label_smoothing` to be", id="smoothing"),
        pytest.param({"encoder_layers": 0}, "`model.encoder_layers` to be", id="layers"),
    ],
)
def test_wrong_sizes_are_refused(data, model_config, changes, message):
    with pytest.raises(ValueError, match=message):
        make_mbart(model_config(**changes), data)
