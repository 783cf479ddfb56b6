"""Trivial translations to compare with."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Sequence

_WORD = re.compile(r"\{[^{}\s]+\}|\w+|[^\w\s]")


def copied(sources: Sequence[str]) -> list[str]:
    """The sources themselves."""
    return list(sources)


def word_table(
    pairs: Sequence[tuple[str, str]], rounds: int = 4
) -> Callable[[Sequence[str]], list[str]]:
    """Word for word, each by its most probable translation; unknown words are copied.

    The probability t(f | e) of target word f for source word e is learnt by `rounds` of
    expectation-maximisation from uniform: each f of a pair is shared among the pair's e in
    proportion to t(f | e).

    Source: Brown et al., "The mathematics of statistical machine translation", 1993, model 1,
    without the empty word.

    Example:
        >>> translate = word_table([("the lamp", "die Lampe"), ("the door", "die Tür")])
        >>> translate(["the door , lamp"])
        ['die Tür , Lampe']
    """
    split = [(_WORD.findall(source), _WORD.findall(target)) for source, target in pairs]
    table: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(lambda: 1.0))
    for _ in range(rounds):
        counts: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
        for source, target in split:
            for f in target:
                shares = [table[e][f] for e in source]
                total = sum(shares)
                for e, share in zip(source, shares, strict=True):
                    counts[e][f] += share / total
        table = {
            e: defaultdict(float, {f: n / sum(row.values()) for f, n in row.items()})
            for e, row in counts.items()
        }
    best = {e: max(row, key=row.__getitem__) for e, row in table.items()}
    return lambda sources: [" ".join(best.get(e, e) for e in _WORD.findall(s)) for s in sources]
