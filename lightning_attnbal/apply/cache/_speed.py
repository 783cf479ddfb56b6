"""Is reading faster than computing?"""

from __future__ import annotations

import statistics
from collections import deque

from lightning_attnbal.apply.cache._reasons import NotCacheableError

_KEPT = 32
_COMPUTED, _READ = 4, 16  # calls needed to tell


class Speed:
    """Seconds per sample that a call of the host takes when its prefix is computed, and when read.

    On a GPU, where calls return before they are done, both are about the time to issue the work.

    Example:
        >>> speed = Speed()
        >>> for _ in range(15):
        ...     speed.note(1.0, rows=4, is_read=True)
        ...     speed.note(3.0, rows=4, is_read=False)
        >>> speed.note(1.0, rows=4, is_read=True)
    """

    def __init__(self) -> None:
        self._computed: deque[float] = deque(maxlen=_KEPT)
        self._read: deque[float] = deque(maxlen=_KEPT)

    def note(self, seconds: float, *, rows: int, is_read: bool) -> None:
        """One call.

        Raises:
            NotCacheableError: reading takes longer.
        """
        (self._read if is_read else self._computed).append(seconds / rows)
        if not is_read or len(self._read) < _READ or len(self._computed) < _COMPUTED:
            return
        read, computed = statistics.median(self._read), statistics.median(self._computed)
        if read > computed:
            msg = (
                f"reading it takes longer than computing it: {1e3 * read:.2g} ms per sample for a "
                f"forward pass with it read, {1e3 * computed:.2g} ms with it computed"
            )
            raise NotCacheableError(msg)
