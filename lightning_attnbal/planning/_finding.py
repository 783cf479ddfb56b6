"""One thing that somebody who wants to balance a run should know beforehand."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """How much a finding matters."""

    FINE = "fine"
    NOTE = "note"
    LIMITED = "limited"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Finding:
    """What was looked at, what came of it, and why.

    Args:
        verdict: `fine`; `note`, worth knowing; `limited`, works without what is named; `refused`,
            the balancer raises an error.
        subject: in a word or two.
        text: as a sentence.

    Example:
        >>> print(Finding(Verdict.NOTE, "tied weights", "2 parameters are shared."))
        note: tied weights: 2 parameters are shared.
    """

    verdict: Verdict
    subject: str
    text: str

    def __str__(self) -> str:
        return f"{self.verdict.value}: {self.subject}: {self.text}"
