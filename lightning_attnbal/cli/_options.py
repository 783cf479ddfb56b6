"""Options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

Shapes = Annotated[
    list[str] | None,
    typer.Option(help="Sizes of a float input, such as 8,3,224,224; once per input."),
]
Tokens = Annotated[str | None, typer.Option(help="Batch and length of token ids, such as 8,128.")]
Arguments = Annotated[
    list[str] | None,
    typer.Option(help="key=value for the model's maker or configuration; repeatable."),
]
HFClass = Annotated[
    str, typer.Option(help="Hugging Face class, such as AutoModelForSequenceClassification.")
]
Batches = Annotated[
    list[str] | None,
    typer.Option(
        help="Instead of random inputs: 'package.module:name' of a batch, or of what makes one; "
        "twice for two batches."
    ),
]
Forward = Annotated[
    str | None,
    typer.Option(
        help="'package.module:name' of a function of model and batch that returns the loss; "
        "without it the output's own `loss` counts, if it has one."
    ),
]
