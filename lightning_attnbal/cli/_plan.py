"""`attnbal plan`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from lightning_attnbal.cli._errors import one_line_errors
from lightning_attnbal.cli._options import Arguments, Batches, Forward, HFClass, Shapes, Tokens
from lightning_attnbal.cli._show import JsonOption, show


def plan_command(
    target: Annotated[str, typer.Argument(help="Model to plan for, named as for `profile`.")],
    steps_per_epoch: Annotated[int, typer.Option(help="Optimizer steps per epoch.")],
    epochs: Annotated[int, typer.Option(help="Epochs of the full run.")],
    budget: Annotated[
        list[str] | None,
        typer.Option(help="Such as 25%, 2 PFLOP or 45min; repeatable.  [default: 10 25 50 100 %]"),
    ] = None,
    memory: Annotated[str | None, typer.Option(help="Peak bytes, such as 6GiB.")] = None,
    shape: Shapes = None,
    tokens: Tokens = None,
    batch: Batches = None,
    forward: Forward = None,
    arg: Arguments = None,
    hf_class: HFClass = "AutoModel",
    optimizer: Annotated[
        str, typer.Option(help="Class in torch.optim that will take the steps.")
    ] = "AdamW",
    pretrained: Annotated[
        bool | None,
        typer.Option(
            "--pretrained/--from-scratch",
            help="Whether the run will start from trained weights, all but the head; without "
            "either the weights here are looked at.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of random weights and inputs.")] = 0,
    every_plan: Annotated[
        bool, typer.Option("--all", help="Show the whole frontier, not one plan per depth.")
    ] = False,
    plot: Annotated[Path | None, typer.Option(help="Also draw it to this file.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Show what each budget would buy and where the run is forecast to end, before any training.

    TARGET, --batch and --forward that are import paths are imported and called: that RUNS THEIR
    CODE. A model made here has new weights; say --pretrained if the run will not.
    """
    with one_line_errors():
        import torch

        from lightning_attnbal.cli._target import (
            find_batches,
            find_forward,
            load_model,
            make_optimizer,
            parse_arguments,
        )
        from lightning_attnbal.planning import forecast_plans

        torch.manual_seed(seed)
        model = load_model(target, parse_arguments(arg or []), hf_class)
        first, second = find_batches(model, shape or [], tokens, batch or [])
        report = forecast_plans(
            model,
            first,
            second_batch=second,
            steps_per_epoch=steps_per_epoch,
            epochs=epochs,
            budgets=budget or (),
            memory=memory,
            forward=find_forward(forward),
            optimizer=make_optimizer(optimizer, model),
            pretrained=pretrained,
        )
        if plot is not None:
            report.plot(plot)
    shown = replace(report, shows_all=every_plan)
    show(shown, shown.to_dict(), as_json=as_json)
