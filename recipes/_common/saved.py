"""What a trained model leaves beside its weights, and how it is used again."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

_CARD = "recipe.json"


class Predictor(Protocol):
    """A trained model in use."""

    def __call__(
        self, inputs: Sequence[str], *, task: str | None = None, top: int = 5
    ) -> list[dict[str, Any]]:
        """What the model says of each input: one JSON-ready record each.

        Args:
            inputs: sentences, picture files, or users.
            task: one of the model's tasks; None: all, or the first where one must be chosen.
            top: answers per input where there are several, in [1, inf).
        """


def write_card(folder: Path, recipe: str, facts: Mapping[str, Any]) -> None:
    """Write `recipe.json`: which recipe made the model, and what its predictor must know."""
    folder.mkdir(parents=True, exist_ok=True)
    whole = folder / f"{_CARD}.part"
    whole.write_text(json.dumps({"recipe": recipe, **facts}, indent=2), encoding="utf-8")
    whole.replace(folder / _CARD)


def read_card(folder: Path) -> dict[str, Any]:
    """What `write_card` wrote.

    Raises:
        FileNotFoundError: the folder holds no model of a recipe.
    """
    path = folder / _CARD
    if not path.is_file():
        msg = f"Expected {folder} to hold a model saved by `recipes.train`, but it has no {_CARD}."
        raise FileNotFoundError(msg)
    card: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return card
