"""Scores equal sacrebleu's own; a word table learns which word is which."""

import pytest
import sacrebleu

from recipes.translation import score, signatures
from recipes.translation.baselines import copied, word_table

SOURCES = ["turn {a} on now please", "the door is open", "{b} and {a} are off", "{c} failed"]
GIVEN = ["schalte {a} jetzt bitte", "die Tür ist offen", "{b} und {b} sind aus", "{d} fehler"]
WANTED = ["schalte {a} bitte jetzt ein", "die Tür ist auf", "{b} und {a} sind aus", "{c} fehler"]


def test_scores_are_sacrebleus():
    scores = score(SOURCES, GIVEN, WANTED)
    assert scores["bleu"] == pytest.approx(sacrebleu.corpus_bleu(GIVEN, [WANTED]).score, abs=1e-3)
    assert scores["chrf"] == pytest.approx(sacrebleu.corpus_chrf(GIVEN, [WANTED]).score, abs=1e-3)
    assert scores["placeholders"] == pytest.approx(1 / 3)


def test_without_placeholders_there_is_no_share_of_them():
    assert sorted(score(["on"], ["an"], ["an"])) == ["bleu", "chrf"]


def test_signatures_tell_version_and_settings():
    assert signatures()["bleu"].startswith("nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:")


def test_word_table_translates_word_for_word_and_copies_the_unknown():
    pairs = [
        ("red lamp", "lampe rouge"),
        ("red door", "porte rouge"),
        ("{x} door", "porte {x}"),
        ("lamp", "lampe"),
    ]
    assert word_table(pairs)(["red door lamp", "{x} blue"]) == ["rouge porte lampe", "{x} blue"]
    assert copied(["red door"]) == ["red door"]
