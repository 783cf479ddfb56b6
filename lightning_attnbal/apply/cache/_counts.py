"""Figures of a prefix cache."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheCounts:
    """What a prefix cache did so far.

    Args:
        rows: samples that went through while a prefix was cached.
        rows_read: those that were read.
        audits: calls in which everything was computed although it was stored, to compare.
        trials: audits in which the host was run twice, read and computed, to compare its results.
        largest_error: of a stored row, relative to its largest entry.
    """

    rows: int = 0
    rows_read: int = 0
    audits: int = 0
    trials: int = 0
    largest_error: float = 0.0

    @property
    def hit_rate(self) -> float:
        """Share of the samples that were read, in [0, 1]."""
        return self.rows_read / self.rows if self.rows else 0.0
