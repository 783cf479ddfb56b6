"""What is run for each recipe, and where the results are kept."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

from recipes.benchmarks._common import RESULTS

FOLDER = RESULTS / "quality"

MEASURED: dict[str, tuple[str, ...]] = {
    "translation": (),
    "image": (),
    "fashion": (
        *("data=hub", "data.name=fashion-mnist", "data.num_train=3000", "data.num_test=2000"),
        "trainer.max_epochs=3",
    ),
    "recommendation": (),
    "text": (),
}
"""Name in the tables → what is given on the command line beside the experiment."""
RECIPE = {"fashion": "image"}
"""Recipe of a name, where it is another."""
BUDGETS = ("25%", "50%")
KINDS = ("balanced", "short", "full", "single_balanced", "single_short", "single_full")
_REVISIONS = {
    ("image", "short"): 2,
    ("image", "balanced"): 4,
    ("image", "single_balanced"): 4,
    ("recommendation", "balanced"): 2,
    ("translation", "balanced"): 2,
}
"""Counted up from 1 when what a kind of run does changes, so that it is run again."""


@dataclass(frozen=True, kw_only=True)
class Launch:
    """One run.

    Args:
        name: key of `MEASURED`.
        kind: last part of the experiment's name.
        budget: share of the full run.
        seed: of the run.
        revision: of what such a run does.
    """

    name: str
    kind: str
    budget: str
    seed: int
    revision: int = 1

    @property
    def recipe(self) -> str:
        """Its recipe."""
        return RECIPE.get(self.name, self.name)

    @property
    def overrides(self) -> list[str]:
        """Arguments of `recipes.train`."""
        own = (f"experiment={self.recipe}_{self.kind}", f"budget={self.budget}")
        quiet = ("callbacks=none", "logger=none", "trainer.threads=1", f"seed={self.seed}")
        return [*own, *MEASURED[self.name], *quiet]

    @property
    def path(self) -> Path:
        """Where the result is kept; another run has another file."""
        facts = repr((sorted(asdict(self).items()), self.overrides))
        digest = hashlib.sha256(facts.encode()).hexdigest()[:8]
        stem = f"{self.kind}-{self.budget.rstrip('%')}-s{self.seed}"
        return FOLDER / self.name / f"{stem}-{digest}.json"

    @property
    def events(self) -> Path:
        """Where the events of a run that is drawn are kept."""
        return FOLDER / self.name / f"{self.kind}-{self.budget.rstrip('%')}.jsonl"

    def result(self) -> dict[str, Any] | None:
        """What was kept, if anything."""
        return json.loads(self.path.read_text()) if self.path.exists() else None


def launches(name: str, kinds: tuple[str, ...], seeds: tuple[int, ...]) -> Iterator[Launch]:
    """Every run of a recipe; those that train everything to the end have no smaller budget.

    Example:
        >>> [(run.kind, run.budget) for run in launches("text", ("short", "full"), (0,))]
        [('short', '25%'), ('short', '50%'), ('full', '100%')]
    """
    for seed, kind in product(seeds, kinds):
        for budget in ("100%",) if kind.endswith("full") else BUDGETS:
            revision = _REVISIONS.get((name, kind), 1)
            yield Launch(name=name, kind=kind, budget=budget, seed=seed, revision=revision)
