"""A sweep over budgets is one that W&B runs and Hydra understands."""

import sys

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from wandb.apis.public.sweeps import _validate_config_and_fill_distribution
from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

from lightning_attnbal.core import Budget
from lightning_attnbal.tracking.views import budget_sweep


def test_wandb_takes_it_as_it_is():
    config = budget_sweep(["20%", 0.4])
    assert _validate_config_and_fill_distribution(config) == config


@pytest.mark.parametrize("budget", ["20%", 0.4, "45min", "2e15 FLOP", "1.5h", "3 PFLOP"])
def test_the_program_gets_the_budget(budget):
    config = budget_sweep([budget], module="recipes.quickstart")
    (value,) = config["parameters"]["budget"]["values"]
    args = create_sweep_command_args({"args": {"budget": {"value": value}}})
    command = create_sweep_command(config["command"])
    words = [w for part in command for w in args.get(part.strip("${}"), [part])]
    assert words[-3:] == ["-m", "recipes.quickstart", f"budget={budget}"]
    (override,) = OverridesParser.create().parse_overrides([words[-1]])
    assert Budget.parse(override.value()) == Budget.parse(budget)


def test_the_program_is_named_by_its_file():
    assert budget_sweep(["20%"], module="recipes.train")["program"] == "recipes/train.py"


def test_no_budgets_are_refused():
    with pytest.raises(ValueError, match="`budgets` to hold at least one budget, but it is empty"):
        budget_sweep([])


@pytest.mark.parametrize("budget", ["120%", "often", -1.0])
def test_what_is_no_budget_is_refused(budget):
    with pytest.raises(ValueError, match="budget"):
        budget_sweep(["20%", budget])


def test_python_is_found_by_the_agent():
    assert "${interpreter}" in budget_sweep(["20%"])["command"]
    assert sys.executable not in budget_sweep(["20%"])["command"]
