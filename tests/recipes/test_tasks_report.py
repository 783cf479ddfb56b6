"""The page on tasks says what the result files say."""

from recipes.benchmarks.tasks import report


def test_the_page_is_what_the_results_say():
    assert (report.HERE / "RESULTS.md").read_text(encoding="utf-8") == report.page()
