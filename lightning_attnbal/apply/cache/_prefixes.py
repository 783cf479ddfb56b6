"""The prefixes of a model: those that are cached or were, and those that cannot be."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from lightning_attnbal.apply.cache._cut import Cut
from lightning_attnbal.apply.cache._find import CutFinder
from lightning_attnbal.apply.cache._order import Visit
from lightning_attnbal.apply.cache._reasons import (
    NotCacheableError,
    PaddingMattersError,
    Refusals,
)
from lightning_attnbal.apply.cache._shelf import Shelf
from lightning_attnbal.core import Unit


class Prefixes:
    """Makes prefixes when they are first asked for, and gives up those that cannot be cached.

    Args:
        model: the model.
        units: its units.
        shelf: where rows are.

    Attributes:
        finder: makes them.
        refusals: those given up.
    """

    def __init__(self, model: nn.Module, units: Sequence[Unit], shelf: Shelf) -> None:
        self.finder = CutFinder(model, units)
        self.refusals = Refusals()
        self._shelf = shelf
        self._cuts: dict[tuple[str, ...], Cut] = {}

    def get(self, names: tuple[str, ...], visits: Sequence[Visit]) -> Cut | None:
        """The prefix of these units, None if it cannot be cached.

        Args:
            names: from the bottom.
            visits: one forward pass.
        """
        if not names or self.refusals.why_not(names) is not None:
            return None
        try:
            cut = self._cuts.get(names) or self.finder.find(names, visits)
        except NotCacheableError as reason:
            self.refusals.note(names, str(reason), is_alone=True)
            return None
        cut.is_doubtful = True  # weights may have moved while nobody looked
        self._cuts[names] = cut
        return cut

    def below(self, cut: Cut) -> list[Cut]:
        """Shallower prefixes of the same host whose rows may still be there, deepest first."""
        found = [
            other
            for other in self._cuts.values()
            if set(other.names) < set(cut.names) and other.skippable.host == cut.skippable.host
        ]
        return sorted(found, key=lambda other: -len(other.names))

    def is_refused(self, cut: Cut) -> bool:
        """Whether it was given up."""
        return cut.names in self.refusals.reasons

    def refuse(self, cut: Cut, reason: NotCacheableError) -> None:
        """Give a prefix up; one that fails without padding is tried once more with it."""
        if isinstance(reason, PaddingMattersError) and cut.trims:
            self.keep_padding(cut)
            return
        self.refusals.note(cut.names, str(reason))
        self._shelf.forget(cut)
        self._cuts.pop(cut.names, None)

    def keep_padding(self, cut: Cut) -> None:
        """Padding is a part of each sample from now on."""
        self._shelf.forget(cut)
        cut.trims = False
