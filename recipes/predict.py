"""Use a trained model: `python -m recipes.predict runs/text/.../model "I love this dress"`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from recipes._common import Predictor, read_card
from recipes._common.running import recipe_package
from recipes._fetch import FetchError

PACKAGES = {
    "translation": "recipes.translation",
    "image": "recipes.vision",
    "recommendation": "recipes.recommendation",
    "text": "recipes.text",
}
"""Recipe → its package."""


def load_model(folder: str | Path) -> Predictor:
    """The model that `recipes.train` saved there.

    Raises:
        FileNotFoundError: the folder holds no such model.
        ValueError: its card names no known recipe.
    """
    card = read_card(Path(folder))
    predictor: Predictor = recipe_package(card["recipe"], PACKAGES).load_predictor(Path(folder))
    return predictor


def predict(
    model: Annotated[Path, typer.Argument(help="folder that a run left: .../model")],
    inputs: Annotated[list[str], typer.Argument(help="sentences, picture files, or users")],
    task: Annotated[str | None, typer.Option(help="one of the model's tasks")] = None,
    top: Annotated[int, typer.Option(min=1, help="answers per input, where there are several")] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object per line")] = False,
) -> None:
    """Translate sentences, classify pictures or texts, recommend for users."""
    try:
        records = load_model(model)(inputs, task=task, top=top)
    except (FetchError, FileNotFoundError, RuntimeError, ValueError) as error:
        raise typer.BadParameter(str(error)) from error
    if as_json:
        for record in records:
            print(json.dumps(record, ensure_ascii=False))
        return
    table = Table(show_header=True)
    for heading in dict.fromkeys(key for record in records for key in record):
        table.add_column(heading)
    for record in records:
        table.add_row(*(_shown(value) for value in record.values()))
    Console().print(table)


def _shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3f}"
    if isinstance(value, list):
        return "\n".join(map(_shown, value))
    if isinstance(value, dict):
        return ", ".join(f"{k}: {_shown(v)}" for k, v in value.items())
    return str(value)


def main() -> None:
    """Read the command line."""
    typer.run(predict)


if __name__ == "__main__":
    main()
