"""The quickstart: its configuration refuses what it does not know; a small run leaves its files."""

import io
import json
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import ConfigCompositionException
from rich.console import Console
from transformers import AutoModelForTokenClassification, AutoTokenizer

from lightning_attnbal import Budget
from lightning_attnbal.tracking import read_events
from recipes.quickstart import (
    LoggerName,
    Outcome,
    QuickstartConfig,
    Source,
    compare,
    make_loggers,
    outcome_table,
    typed,
)

ROOT = Path(__file__).parents[2]


def configured(*overrides):
    with initialize_config_dir(str(ROOT / "conf" / "quickstart"), version_base="1.3"):
        return typed(compose("quickstart", list(overrides)))


@pytest.mark.parametrize(
    ("overrides", "source"),
    [
        pytest.param([], Source.reviews, id="default"),
        pytest.param(["data=csv", "data.path=a.csv"], Source.csv, id="csv"),
        pytest.param(["data=synthetic"], Source.synthetic, id="synthetic"),
        pytest.param(["+experiment=quick"], Source.reviews, id="quick"),
    ],
)
def test_every_configuration_is_typed(overrides, source):
    config = configured(*overrides)
    assert isinstance(config, QuickstartConfig)
    assert config.data.source is source
    assert Budget.parse(config.budget).is_fraction


@pytest.mark.parametrize("override", ["bugdet=40%", "data.num_trian=10", "lr_balanced=1e-4"])
def test_misspelt_key_is_refused_when_the_configuration_is_composed(override):
    with pytest.raises(ConfigCompositionException, match="Could not override"):
        configured(override)


def test_csv_asks_for_its_path():
    with pytest.raises(ValueError, match=r"Expected `data\.path` to be given"):
        configured("data=csv")


def test_outcome_table_has_one_row_per_run():
    row = Outcome("balanced", "2 TFLOP", "1.9 TFLOP", "1.9 TFLOP", 12.0, 0.625, 0.5)
    console = Console(width=100, file=io.StringIO())
    console.print(outcome_table([row]))
    text = console.file.getvalue()
    assert all(cell in text for cell in ("balanced", "1.9 TFLOP", "12", "0.625", "0.500"))


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
def test_small_run_leaves_a_model_events_and_a_picture(encoder, tmp_path):
    config = configured(
        "data=synthetic",
        "data.num_train=96",
        "data.num_val=8",
        "data.num_test=8",
        "data.batch_size=4",
        "data.max_tokens=8",
        "control_budget=null",
        f"encoder={encoder}",
        f"out_dir={tmp_path}",
    )
    outcomes = compare(config, Console(quiet=True))

    assert [o.name for o in outcomes] == ["balanced", "full"]
    assert outcomes[0].allowed == outcomes[1].allowed
    saved = json.loads((tmp_path / "results.json").read_text())
    assert [Outcome(**row) for row in saved] == outcomes
    for outcome in outcomes:
        ended = read_events(tmp_path / outcome.name / "attnbal.jsonl")[-1]
        assert ended.spent <= ended.limit
    assert (tmp_path / "plan.png").read_bytes().startswith(b"\x89PNG")
    model = AutoModelForTokenClassification.from_pretrained(tmp_path / "model")
    words = AutoTokenizer.from_pretrained(tmp_path / "model")(["a good dress"], return_tensors="pt")
    assert model(**words).logits.shape[::2] == (1, 5)


def test_every_logger_can_be_had_once(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    names = [LoggerName.csv, LoggerName.tensorboard, LoggerName.wandb, LoggerName.csv]
    found = make_loggers(names, tmp_path / "balanced")
    assert [type(logger).__name__ for logger in found] == [
        "CSVLogger",
        "TensorBoardLogger",
        "WandbLogger",
    ]
    assert make_loggers([], tmp_path) == []
