"""`attnbal profile`."""

from __future__ import annotations

from typing import Annotated

import typer

from lightning_attnbal.cli._errors import one_line_errors
from lightning_attnbal.cli._options import Arguments, HFClass, Shapes, Tokens
from lightning_attnbal.cli._show import JsonOption, show


def profile_command(
    target: Annotated[
        str,
        typer.Argument(
            help="Model to profile: 'torchvision.models:resnet18' or any 'package.module:name' "
            "'hf:bert', or a Hugging Face config.json."
        ),
    ],
    shape: Shapes = None,
    tokens: Tokens = None,
    arg: Arguments = None,
    hf_class: HFClass = "AutoModel",
    seconds: Annotated[bool, typer.Option(help="Also time every unit.")] = True,
    repeats: Annotated[int, typer.Option(help="Timed rounds.", min=1)] = 3,
    optimizer: Annotated[
        str, typer.Option(help="Class in torch.optim whose update and state are priced.")
    ] = "AdamW",
    as_json: JsonOption = False,
) -> None:
    """Show what training each unit of a model costs: FLOPs, seconds, bytes, bottlenecks.

    A TARGET that is an import path is imported and called: that RUNS ITS CODE.
    """
    with one_line_errors():
        from lightning_attnbal.cli._target import (
            load_model,
            make_batch,
            make_optimizer,
            parse_arguments,
        )
        from lightning_attnbal.measure import profile

        model = load_model(target, parse_arguments(arg or []), hf_class)
        batch = make_batch(model, shape or [], tokens)
        priced = make_optimizer(optimizer, model)
        report = profile(model, batch, optimizer=priced, seconds=seconds, repeats=repeats)
    show(report, report.to_dict(), as_json=as_json)
