"""The commands, as typer sees them."""

from __future__ import annotations

import json
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from torch import nn
from torch.optim import Optimizer

from lightning_attnbal.cli._target import load_model, make_batch, parse_arguments
from lightning_attnbal.measure import LoadReport, profile

app = typer.Typer(help="Attention Balancer: what every part of a model costs to train.")

_BAD_INPUT = (
    ValueError,
    TypeError,
    RuntimeError,
    LookupError,
    AttributeError,
    ImportError,
    OSError,
)


@app.callback()
def _commands() -> None:
    """Keep `profile` a command of its own."""


@app.command("profile")
def profile_command(
    target: Annotated[
        str,
        typer.Argument(
            help="Model to profile: 'torchvision.models:resnet18' or any 'package.module:name' "
            "'hf:bert', or a Hugging Face config.json."
        ),
    ],
    shape: Annotated[
        list[str] | None,
        typer.Option(help="Sizes of a float input, such as 8,3,224,224; once per input."),
    ] = None,
    tokens: Annotated[
        str | None, typer.Option(help="Batch and length of token ids, such as 8,128.")
    ] = None,
    arg: Annotated[
        list[str] | None,
        typer.Option(help="key=value for the model's maker or configuration; repeatable."),
    ] = None,
    hf_class: Annotated[
        str, typer.Option(help="Hugging Face class, such as AutoModelForSequenceClassification.")
    ] = "AutoModel",
    seconds: Annotated[bool, typer.Option(help="Also time every unit.")] = True,
    repeats: Annotated[int, typer.Option(help="Timed rounds.", min=1)] = 3,
    optimizer: Annotated[
        str, typer.Option(help="Class in torch.optim whose update and state are priced.")
    ] = "AdamW",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, not a table.")] = False,
) -> None:
    """Show what training each unit of a model costs: FLOPs, seconds, bytes, bottlenecks.

    A TARGET that is an import path is imported and called: that RUNS ITS CODE.
    """
    try:
        model = load_model(target, parse_arguments(arg or []), hf_class)
        batch = make_batch(model, shape or [], tokens)
        priced = _optimizer(optimizer, model)
        report = profile(model, batch, optimizer=priced, seconds=seconds, repeats=repeats)
    except _BAD_INPUT as error:
        line = " ".join(str(error).split())
        typer.echo(f"attnbal: {line or type(error).__name__}", err=True)
        raise typer.Exit(2) from error
    _show(report, as_json=as_json)


def _optimizer(name: str, model: nn.Module) -> Optimizer:
    kind: Any = getattr(torch.optim, name, None)
    if not isinstance(kind, type) or Optimizer not in kind.__mro__[1:]:
        msg = f"Expected `--optimizer` to be a class in torch.optim, but got {name!r}."
        raise ValueError(msg)
    made: Optimizer = kind(model.parameters())
    return made


def _show(report: LoadReport, *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(report.to_dict(), indent=2))
    else:
        Console().print(report)
