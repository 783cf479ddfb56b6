"""`attnbal doctor`."""

from __future__ import annotations

from typing import Annotated

import typer

from lightning_attnbal.cli._errors import one_line_errors
from lightning_attnbal.cli._options import Arguments, Batches, Forward, HFClass, Shapes, Tokens
from lightning_attnbal.cli._show import JsonOption, show


def doctor_command(
    target: Annotated[
        str | None,
        typer.Argument(help="Model to look at, named as for `profile`; without it, none."),
    ] = None,
    trainer: Annotated[
        list[str] | None,
        typer.Option(
            help="key=value for a Lightning Trainer, such as strategy=ddp; several in quotes, or "
            "repeatable."
        ),
    ] = None,
    shape: Shapes = None,
    tokens: Tokens = None,
    batch: Batches = None,
    forward: Forward = None,
    arg: Arguments = None,
    hf_class: HFClass = "AutoModel",
    as_json: JsonOption = False,
) -> None:
    """Show what is installed, what the balancer finds in a model, and what it would refuse.

    With --shape, --tokens or --batch the model is also trained for a few steps, to see what can be
    cached and cut. TARGET, --batch and --forward that are import paths are imported and called:
    that RUNS THEIR CODE. Exit code 1: something would be refused.
    """
    with one_line_errors():
        from lightning_attnbal.cli._checkup import Checkup, look_at_model, look_at_trainer, quiet
        from lightning_attnbal.cli._environment import look_around
        from lightning_attnbal.cli._target import (
            find_batches,
            find_forward,
            load_model,
            parse_arguments,
        )

        found = Checkup(environment=tuple(look_around()))
        with quiet():
            model = None
            if target is not None:
                model = load_model(target, parse_arguments(arg or []), hf_class)
                given = bool(shape or batch or tokens is not None)
                first = find_batches(model, shape or [], tokens, batch or [])[0] if given else None
                found.model = look_at_model(model, first, find_forward(forward))
            if model is not None or trainer:
                found.trainer = look_at_trainer(trainer or [], model)
    show(found, found.to_dict(), as_json=as_json)
    raise typer.Exit(int(found.is_refused))
