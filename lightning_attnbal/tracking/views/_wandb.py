"""A run in Weights & Biases."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

from typing_extensions import override

from lightning_attnbal.tracking._codec import encode
from lightning_attnbal.tracking._detail_events import ScoresMeasured
from lightning_attnbal.tracking._events import RunEnded, RunStarted
from lightning_attnbal.tracking.views._keys import Key, step_metric
from lightning_attnbal.tracking.views._loggers import Logger, LoggerView
from lightning_attnbal.tracking.views._rows import DecisionRow, UnitRow
from lightning_attnbal.tracking.views._view import Content, Frame

if TYPE_CHECKING:
    import wandb


class WandbView(LoggerView):
    """Scalars, tables, figures, configuration and summary in a W&B run.

    A frame is one row of the history with `attnbal/step` and `attnbal/epoch`, and every key has one
    of the two as its step metric. No value of `trainer/global_step` is written; W&B itself repeats
    the user's last one in rows with media. Tables grow by increments; W&B's pages show the latest
    hundred of them.

    Args:
        logger: a `WandbLogger`; online, offline and disabled alike.
    """

    shows = frozenset(Content)

    def __init__(self, logger: Logger) -> None:
        super().__init__(logger)
        self._defined: set[str] = set()
        self._tables: dict[str, wandb.Table] = {}
        self._scores: dict[str, float] = {}

    @override
    def show(self, frame: Frame) -> None:
        run = self.logger.experiment
        if not self._defined:
            self._begin(run, frame.started)
        row: dict[str, Any] = dict(frame.scalars)
        self._add(Key.DECISIONS, DecisionRow, frame.decisions)
        if frame.units:
            self._add(Key.UNITS, UnitRow, frame.units)
            row.update(self._tables)
        row |= {Key.FIGURE.of(name): _image(png) for name, png in frame.figures.items()}
        if row:
            self._log(run, row, frame)
        self._summarise(run, frame)

    def _begin(self, run: Any, started: RunStarted | None) -> None:
        for key in (Key.STEP, Key.EPOCH):
            run.define_metric(key.value, hidden=True)
            self._defined.add(key)
        if started is not None:
            described = {"budget", "dimension", "seed", "units", "environment", "started_at"}
            config = {name: value for name, value in encode(started).items() if name in described}
            run.config.update({"attnbal": config}, allow_val_change=True)

    def _add(self, key: Key, kind: type[UnitRow | DecisionRow], rows: Iterable[Any]) -> None:
        """Append rows to a table, made when it gets its first."""
        import wandb

        for row in rows:
            if key not in self._tables:
                columns: list[str | int] = [field.name for field in fields(kind)]
                self._tables[key] = wandb.Table(columns=columns, log_mode="INCREMENTAL")
            self._tables[key].add_data(*map(_cell, asdict(row).values()))

    def _log(self, run: Any, row: dict[str, Any], frame: Frame) -> None:
        """One row of the history; a key is given its step metric before its first value."""
        for key in row.keys() - self._defined:
            run.define_metric(str(key), step_metric=step_metric(key).value, step_sync=False)
        self._defined |= row.keys()
        at = {Key.STEP.value: frame.step, Key.EPOCH.value: frame.epoch}
        run.log({**{str(key): value for key, value in row.items()}, **at})

    def _summarise(self, run: Any, frame: Frame) -> None:
        for event in frame.events:
            if isinstance(event, ScoresMeasured):
                self._scores |= event.scores
            if isinstance(event, RunEnded):
                run.summary.update({"attnbal/ended": event.why})
        if frame.is_last:
            run.summary.update({Key.QUALITY.of(k): v for k, v in self._scores.items()})


def _cell(value: Any) -> Any:
    """A table's empty cell is None."""
    return None if isinstance(value, float) and math.isnan(value) else value


def _image(png: bytes) -> Any:
    import wandb
    from PIL import Image

    return wandb.Image(Image.open(io.BytesIO(png)))
