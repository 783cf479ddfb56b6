"""Do samples come back? With random augmentation they do not."""

from __future__ import annotations

from collections.abc import Collection, Hashable

from torch import distributed

from lightning_attnbal.apply.cache._reasons import NotCacheableError

_FEW_CALLS = 8
_FEW = 0.05  # of the repeats that there should be
_LITTLE = 0.1  # of an epoch: too little to tell anything from


class Repeats:
    """Counts, epoch by epoch, the samples that were there in an earlier one.

    Example:
        >>> repeats = Repeats()
        >>> for key in (b"a", b"b"):
        ...     repeats.begin_epoch()
        ...     repeats.begin_step()
        ...     repeats.count([key])
        >>> repeats.expected, repeats.num_known
        (1.0, 0)
    """

    def __init__(self) -> None:
        self.expected, self.num_known = 0.0, 0
        self._form: Hashable = None
        self._seen: set[bytes] = set()
        self._steps, self._counted, self._has_counted = 0, 0, False
        self._calls, self._rows = 0, 0

    def begin_epoch(self) -> None:
        """Samples of the epochs before this one should come back now."""
        self.expected = self._counted / self._steps / _num_ranks() if self._steps else 0.0
        self._steps, self._counted, self._has_counted = 0, 0, False
        self._calls, self._rows, self.num_known = 0, 0, 0

    def begin_step(self) -> None:
        """A training step starts."""
        self._steps += 1
        self._has_counted = False

    def count(self, keys: Collection[bytes], form: Hashable = None) -> None:
        """The samples of a call.

        Args:
            keys: of the samples.
            form: keys of another form cannot be compared.

        Raises:
            NotCacheableError: far fewer come back than should.
        """
        if form != self._form:
            self._form, self._seen = form, set()
            self.expected, self._counted, self._has_counted = 0.0, 0, False
        self._counted += not self._has_counted
        self._has_counted = True
        self._calls += 1
        self._rows += len(keys)
        self.num_known += sum(key in self._seen for key in keys)
        self._seen.update(keys)
        should = self.expected * self._rows
        if self._calls < _FEW_CALLS or self.expected < _LITTLE or self.num_known >= _FEW * should:
            return
        msg = (
            f"of {self._rows} samples only {self.num_known} had come by before, where about "
            f"{should:.0f} should have: they differ from epoch to epoch (random augmentation, "
            "random masks, negatives drawn anew, padding that no mask tells of, or an attribute "
            "of the model that is a number and changes)"
        )
        raise NotCacheableError(msg)


def _num_ranks() -> int:
    """How many processes share out the samples, differently in each epoch."""
    is_there = distributed.is_available() and distributed.is_initialized()
    return distributed.get_world_size() if is_there else 1
