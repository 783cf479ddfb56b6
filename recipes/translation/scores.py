"""How good translations are: BLEU, chrF, and placeholders that arrived."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cache

from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF

from recipes.translation.codec import PLACEHOLDER


def score(
    sources: Sequence[str], hypotheses: Sequence[str], references: Sequence[str]
) -> dict[str, float]:
    """Corpus scores of N translations with one reference each.

    Returns:
        `bleu` and `chrf` in [0, 100], as `signatures` says; `placeholders` in [0, 1], the share of
        sources with placeholders whose translation has exactly the same ones (absent if there are
        no such sources).

    Source: Post, "A call for clarity in reporting BLEU scores", 2018; Popović, "chrF", 2015.

    Example:
        >>> score(["Turn {x} on now"], ["Schalte {x} jetzt ein"], ["Schalte {x} jetzt ein"])
        {'bleu': 100.0, 'chrf': 100.0, 'placeholders': 1.0}
    """
    scores = {
        "bleu": round(BLEU().corpus_score(hypotheses, [references]).score, 4),
        "chrf": round(CHRF().corpus_score(hypotheses, [references]).score, 4),
    }
    kept = [
        Counter(PLACEHOLDER.findall(source)) == Counter(PLACEHOLDER.findall(hypothesis))
        for source, hypothesis in zip(sources, hypotheses, strict=True)
        if PLACEHOLDER.search(source)
    ]
    return {**scores, "placeholders": sum(kept) / len(kept)} if kept else scores


@cache
def signatures() -> dict[str, str]:
    """What sacrebleu calls its settings, to be quoted with the numbers.

    Example:
        >>> signatures()["chrf"]
        'nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no|version:...'
    """
    found = {}
    for name, metric in (("bleu", BLEU()), ("chrf", CHRF())):
        metric.corpus_score(["a"], [["a"]])
        found[name] = str(metric.get_signature())
    return found
