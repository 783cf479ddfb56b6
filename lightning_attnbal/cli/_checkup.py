"""The work of `attnbal doctor`: look, and lay out what was found."""

from __future__ import annotations

import logging
import shlex
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text
from torch import nn

from lightning_attnbal.cli._target import parse_arguments
from lightning_attnbal.planning import Finding, Verdict, diagnose_model

_STYLES = {
    Verdict.FINE: "green",
    Verdict.NOTE: "cyan",
    Verdict.LIMITED: "yellow",
    Verdict.REFUSED: "bold red",
}
_QUIET = {
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}


@dataclass(slots=True)
class Checkup:
    """What was found; an empty part was not looked at."""

    environment: tuple[Finding, ...] = ()
    model: tuple[Finding, ...] = ()
    trainer: tuple[Finding, ...] = ()

    @property
    def is_refused(self) -> bool:
        """Whether the balancer would raise an error."""
        every = (*self.environment, *self.model, *self.trainer)
        return any(finding.verdict is Verdict.REFUSED for finding in every)

    @property
    def summary(self) -> str:
        """In a sentence."""
        if not self.trainer:
            return "Name a model, or --trainer options, to see what would be refused."
        if self.is_refused:
            return "The balancer would refuse this run, for the reasons above."
        return "The balancer would not refuse this run."

    def to_dict(self) -> dict[str, Any]:
        """Plain data that JSON can hold."""
        return {"is_refused": self.is_refused, **asdict(self)}

    def __rich__(self) -> RenderableType:
        parts: list[RenderableType] = []
        sections = {"Environment": self.environment, "Model": self.model, "Trainer": self.trainer}
        for title, findings in sections.items():
            if findings:
                parts += [Text(title, style="bold"), _table(findings), Text()]
        return Group(*parts, Text(self.summary))


def _table(findings: Sequence[Finding]) -> Table:
    table = Table.grid(padding=(0, 2), pad_edge=False)
    for overflow in ("ellipsis", "ellipsis", "fold"):
        table.add_column(no_wrap=overflow == "ellipsis")
    for finding in findings:
        verdict = Text(finding.verdict.value, style=_STYLES[finding.verdict])
        table.add_row(verdict, Text(finding.subject), Text(finding.text))
    return table


def look_at_model(model: nn.Module, batch: Any, forward: Any) -> tuple[Finding, ...]:
    """Compiled parts run as they are written: what is compiled is refused anyway."""
    with torch.compiler.set_stance("force_eager"):
        return diagnose_model(model, batch, forward=forward)


def look_at_trainer(pairs: Sequence[str], model: nn.Module | None) -> tuple[Finding, ...]:
    """Build the Trainer and let the callback's own check speak, after Lightning's.

    Raises:
        TypeError: the Trainer has no such option.
        ValueError: a pair is no key=value, or Lightning knows no such value.
    """
    from lightning.fabric.utilities.exceptions import MisconfigurationException
    from lightning.pytorch import Trainer

    from lightning_attnbal.callbacks import diagnose_trainer

    options = parse_arguments([word for pair in pairs for word in shlex.split(pair)], "trainer")
    base: dict[str, Any] = {**_QUIET, **({} if options else {"devices": 1})}
    try:
        trainer = Trainer(**{**base, **options})
    except MisconfigurationException as error:
        return (Finding(Verdict.REFUSED, "Trainer", f"Lightning refuses it here: {error}"),)
    return diagnose_trainer(trainer, model)


@contextmanager
def quiet() -> Iterator[None]:
    """What is found is shown once, not logged and warned of as well."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)
