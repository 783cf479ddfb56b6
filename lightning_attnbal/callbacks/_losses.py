"""The losses of a run, stretch by stretch, for the forecast."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor

from lightning_attnbal.allocate import Progress, Segment, merged

_MOST = 64  # stretches kept


class Losses:
    """Mean training loss per stretch of steps under one plan; what is still open costs no sync.

    Args:
        window: optimizer steps per stretch, in [1, inf).

    Example:
        >>> losses = Losses(window=2)
        >>> for loss in (4.0, 2.0, 1.0):
        ...     losses.add(("head",), torch.tensor(loss), stepped=True)
        >>> [(s.steps, s.loss) for s in losses.progress(frozenset()).segments]
        [(2.0, 3.0), (1.0, 1.0)]
    """

    def __init__(self, window: int = 10) -> None:
        self.window = window
        self._segments: tuple[Segment, ...] = ()
        self._trained: tuple[str, ...] = ()
        self._sum: Tensor | None = None
        self._count = 0
        self._steps = 0

    def add(self, trained: Collection[str], loss: Tensor | None, *, stepped: bool) -> None:
        """One batch has ended."""
        names = tuple(trained)
        if names != self._trained or self._steps >= self.window:
            self._close()
            self._trained = names
        if loss is not None:
            value = loss.detach().double()
            self._sum = value if self._sum is None else self._sum + value
            self._count += 1
        self._steps += stepped

    def _close(self) -> None:
        """The open stretch is over."""
        if self._steps:
            self._segments = merged((*self._segments, self._open()), _MOST)
        self._sum, self._count, self._steps = None, 0, 0

    def _open(self) -> Segment:
        total = math.nan if self._sum is None else float(self._sum)
        loss = total / self._count if self._count and math.isfinite(total) else math.nan
        return Segment(trained=self._trained, steps=self._steps, loss=loss)

    def progress(self, fresh: frozenset[str]) -> Progress:
        """The run so far."""
        segments = (*self._segments, self._open()) if self._steps else self._segments
        return Progress(segments=segments, fresh=fresh)

    def state_dict(self) -> dict[str, Any]:
        """Plain data for a checkpoint."""
        return {
            "segments": Progress(segments=self._segments).to_dict()["segments"],
            "open": (
                list(self._trained),
                None if self._sum is None else float(self._sum),
                self._count,
                self._steps,
            ),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self._segments = Progress.from_dict({"segments": state["segments"], "fresh": ()}).segments
        trained, total, self._count, self._steps = state["open"]
        self._trained = tuple(trained)
        self._sum = None if total is None else torch.tensor(total, dtype=torch.float64)


def logged_loss(outputs: Any, batches_per_step: int) -> Tensor | None:
    """The loss of a batch, where `training_step` returned one; Lightning hands on its share.

    Example:
        >>> logged_loss({"loss": torch.tensor(0.5)}, batches_per_step=2)
        tensor(1.)
    """
    loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        return None
    return loss * batches_per_step
