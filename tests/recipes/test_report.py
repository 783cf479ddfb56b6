"""The README's figures are those of the benchmarks."""

from __future__ import annotations

from recipes.benchmarks.report import README, updated


def test_readme_holds_the_committed_results():
    text = README.read_text(encoding="utf-8")
    assert updated(text) == text
