"""Every experiment composes; what is misspelt is refused with the right names; keys are pinned."""

import dataclasses
import re
import sys
from pathlib import Path

import pytest
from hydra.core.config_store import ConfigStore

from recipes import train
from recipes._common.composing import CONF, build
from recipes._common.config import DataConfig, TrainConfig
from recipes.train import compose_run

EXPERIMENTS = sorted(path.stem for path in (CONF / "experiment").glob("*.yaml"))
RECIPES = sorted(path.stem for path in (CONF / "recipe").glob("*.yaml"))
MODELS = sorted(path.stem for path in (CONF / "model").glob("*.yaml"))
KEYS = Path(__file__).with_name("public_keys.txt")


def keys_of(node, prefix=""):
    """Every key of a configuration, dotted."""
    for field in dataclasses.fields(node):
        value = getattr(node, field.name)
        if dataclasses.is_dataclass(value):
            yield from keys_of(value, f"{prefix}{field.name}.")
        elif field.name != "_target_":
            yield f"{prefix}{field.name}"


def test_there_is_an_experiment_set_for_every_recipe():
    kinds = ("full", "short", "balanced", "single_full", "single_short", "single_balanced")
    assert sorted(f"{recipe}_{kind}" for recipe in RECIPES for kind in kinds) == EXPERIMENTS


@pytest.mark.parametrize("experiment", EXPERIMENTS)
@pytest.mark.parametrize("data", ["embedded", "synthetic"])
def test_every_experiment_composes(experiment, data):
    config = compose_run([f"experiment={experiment}", f"data={data}"])
    assert isinstance(config, TrainConfig)
    assert experiment.startswith(config.recipe)
    assert config.data.source == data
    is_single = "_single_" in experiment
    assert (len(config.data.tasks) == 1) == is_single
    assert config.budget == ("100%" if experiment.endswith("full") else "25%")


@pytest.mark.parametrize("model", MODELS)
def test_every_model_composes_and_may_be_built(model):
    named = ["model.name=some"] if model.endswith(("timm", "torchvision", "hub")) else []
    config = compose_run([f"experiment={model.partition('_')[0]}_full", f"model={model}", *named])
    assert config.model._target_ in train.TARGETS


@pytest.mark.parametrize("group", ["balancer", "trainer", "callbacks", "logger"])
def test_every_option_composes(group):
    for option in sorted(path.stem for path in (CONF / group).glob("*.yaml")):
        config = compose_run(["experiment=text_balanced", f"{group}={option}"])
        assert isinstance(config, TrainConfig), option


def test_loggers_combine():
    config = compose_run(["experiment=text_balanced", "logger=[csv,tensorboard,wandb]"])
    assert [str(name) for name in config.logger] == ["csv", "tensorboard", "wandb"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("bugdet=30%", r"bugdet.*Expected one of the keys:.* budget, "),
        ("data.bach_size=3", r"bach_size.*Expected one of the keys of `data`:.* batch_size, "),
        ("balancer.reech=3", r"reech.*Expected one of the keys of `balancer`:.* reach, "),
        ("balancer.levels=[cached,frosen]", r"frosen.*cached, frozen, full"),
        ("balancer.objective=best", r"best.*sum, worst"),
        ("trainer.accelerator=gpus", r"gpus.*auto, cpu, gpu"),
        ("trainer.precision=bf16", r"bf16.*32-true, bf16-mixed"),
        ("data.batch_size=many", r"many.*Integer"),
        ("data=sintetic", r"sintetic.*embedded.*files.*hub.*synthetic"),
        ("balancer=of", r"Could not find 'balancer/of'.*multitask.*off"),
        ("logger=wandbb", r"Could not find 'logger/wandbb'.*csv.*none.*tensorboard.*wandb"),
    ],
)
def test_what_is_misspelt_is_refused_and_the_allowed_ones_are_named(override, message):
    with pytest.raises(ValueError) as error:  # noqa: PT011 (the message is checked below)
        compose_run(["experiment=text_balanced", override])
    assert re.search(message, str(error.value), re.DOTALL), str(error.value)


@pytest.mark.parametrize(("source", "key"), [("files", "path"), ("hub", "name")])
@pytest.mark.parametrize("recipe", RECIPES)
def test_a_source_that_lacks_its_place_is_refused_before_anything_is_loaded(recipe, source, key):
    config = compose_run([f"experiment={recipe}_full", f"data={source}"])
    with pytest.raises(
        ValueError, match=rf"Expected `data\.{key}` to be given for `data={source}`"
    ):
        build(config.data, train.TARGETS)


def test_a_model_by_name_asks_for_the_name():
    with pytest.raises(ValueError, match=r"Expected `model\.name` to be given"):
        compose_run(["experiment=image_full", "model=image_timm"])


def test_a_run_without_an_experiment_is_told_which_there_are():
    with pytest.raises(ValueError, match=r"`experiment=` to be one of image_balanced, image_full"):
        compose_run([])


def test_public_keys_are_pinned():
    """A key that goes or is renamed breaks somebody's command line: say so in the CHANGELOG."""
    found = {
        f"{recipe}: {key}"
        for recipe in RECIPES
        for key in keys_of(compose_run([f"experiment={recipe}_full"]))
    }
    assert sorted(found) == KEYS.read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize(
    "target",
    ["os.system", "recipes.train.os.system", "evil.Data", "recipes.text.TextTasksData "],
)
def test_a_target_that_is_not_allowed_is_refused_and_nothing_is_imported(
    target, tmp_path, monkeypatch
):
    (tmp_path / "evil.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match="Expected `_target_` to be one of"):
        build(DataConfig(_target_=target), train.TARGETS)
    assert "evil" not in sys.modules


def test_every_allowed_target_is_the_default_of_a_schema():
    repo = ConfigStore.instance().repo
    nodes = [*repo.values(), *repo["model"].values()]
    defaults = {n.node._target_ for n in nodes if hasattr(n, "node") and "_target_" in n.node}
    assert {t for t in train.TARGETS if t not in defaults} == set()
