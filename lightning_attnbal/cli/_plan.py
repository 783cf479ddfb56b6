"""`attnbal plan`."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console

from lightning_attnbal.cli._errors import one_line_errors
from lightning_attnbal.cli._options import Arguments, HFClass, Shapes, Tokens
from lightning_attnbal.cli._target import (
    find_batches,
    find_forward,
    load_model,
    make_optimizer,
    parse_arguments,
)
from lightning_attnbal.planning import PlanReport, forecast_plans

_WIDE = 200  # columns, where nobody's terminal sets them


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
    batch: Annotated[
        list[str] | None,
        typer.Option(
            help="Instead of random inputs: 'package.module:name' of a batch, or of what makes "
            "one; twice for two batches."
        ),
    ] = None,
    forward: Annotated[
        str | None,
        typer.Option(
            help="'package.module:name' of a function of model and batch that returns the loss; "
            "without it the output's own `loss` counts, if it has one."
        ),
    ] = None,
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
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, not tables.")] = False,
) -> None:
    """Show what each budget would buy and where the run is forecast to end, before any training.

    TARGET, --batch and --forward that are import paths are imported and called: that RUNS THEIR
    CODE. A model made here has new weights; say --pretrained if the run will not.
    """
    with one_line_errors():
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
    _show(replace(report, shows_all=every_plan), as_json=as_json)


def _show(report: PlanReport, *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(report.to_dict(), indent=2, ensure_ascii=False))
        return
    console = Console()
    if not console.is_terminal:
        console = Console(width=_WIDE, no_color=True, highlight=False)
    console.print(report)
