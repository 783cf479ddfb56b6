"""Why something cannot be cached."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lightning_attnbal.apply.cache._cut import Cut

_log = logging.getLogger(__name__)


class NotCacheableError(Exception):
    """What a prefix computes cannot be stored.

    Args:
        reason: in words.
        cut: the prefix; None: the one that is engaged.
    """

    def __init__(self, reason: str, cut: Cut | None = None) -> None:
        super().__init__(reason)
        self.cut = cut


class PaddingMattersError(NotCacheableError):
    """It cannot be stored without padding; with padding as a part of each sample, perhaps."""


class Refusals:
    """Prefixes that cannot be cached, and why.

    Attributes:
        reasons: by the names of the units.

    Example:
        >>> refusals = Refusals()
        >>> refusals.note(("a", "b"), "it is random")
        >>> refusals.why_not(("a", "b", "c")), refusals.why_not(("a",))
        ('it is random', None)
    """

    def __init__(self) -> None:
        self.reasons: dict[tuple[str, ...], str] = {}
        self._alone: set[tuple[str, ...]] = set()

    def note(self, names: tuple[str, ...], reason: str, *, is_alone: bool = False) -> None:
        """Refuse a prefix, and unless `is_alone` all that it is the lower part of."""
        _log.warning("Not cached: %s … %s, because %s.", names[0], names[-1], reason)
        self.reasons[names] = reason
        if is_alone:
            self._alone.add(names)

    def why_not(self, names: Sequence[str]) -> str | None:
        """Why a prefix is refused, None if it is not."""
        for refused, reason in self.reasons.items():
            is_part = refused not in self._alone and set(refused) <= set(names)
            if is_part or refused == tuple(names):
                return reason
        return None
