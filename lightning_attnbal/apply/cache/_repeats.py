"""Do samples come back? With random augmentation they do not."""

from __future__ import annotations

from collections.abc import Container

from lightning_attnbal.apply.cache._identity import Rows
from lightning_attnbal.apply.cache._reasons import NotCacheableError

_FEW_CALLS = 8
_FEW = 0.25  # of the repeats that there should be
_LITTLE = 0.1  # of an epoch: too little to tell anything from


class Repeats:
    """Counts, epoch by epoch, the samples that were there in an earlier one.

    Example:
        >>> repeats = Repeats()
        >>> repeats.begin_epoch()
        >>> repeats.begin_step(is_engaged=True)
        >>> repeats.begin_epoch()
        >>> repeats.expected
        1.0
    """

    def __init__(self) -> None:
        self.expected = 0.0
        self._steps, self._engaged = 0, 0
        self._calls, self._rows, self._known = 0, 0, 0

    def begin_epoch(self) -> None:
        """Samples of the epochs before this one should come back now."""
        self.expected = self._engaged / self._steps if self._steps else 0.0
        self._steps, self._engaged = 0, 0
        self._calls, self._rows, self._known = 0, 0, 0

    def begin_step(self, *, is_engaged: bool) -> None:
        """A training step starts, with or without a prefix cached."""
        self._steps += 1
        self._engaged += is_engaged

    def count(self, rows: Rows, seen: Container[bytes]) -> None:
        """The samples of a call, and those seen before.

        Raises:
            NotCacheableError: far fewer come back than should.
        """
        self._calls += 1
        self._rows += rows.count
        self._known += sum(key in seen for key in rows.keys)
        should = self.expected * self._rows
        if self._calls < _FEW_CALLS or self.expected < _LITTLE or self._known >= _FEW * should:
            return
        msg = (
            f"of {self._rows} samples only {self._known} had come by before, where about "
            f"{should:.0f} should have: they differ from epoch to epoch (random augmentation, "
            "random masks, negatives drawn anew, or padding that no mask tells of)"
        )
        raise NotCacheableError(msg)
