"""The page on tasks says what the result files say."""

import pytest

from recipes.benchmarks.tasks import report, tuning


def test_the_page_is_what_the_results_say():
    assert (report.HERE / "RESULTS.md").read_text(encoding="utf-8") == report.page()


def test_no_rate_is_taken_while_a_try_is_running(tmp_path, monkeypatch):
    monkeypatch.setattr(tuning, "FOLDER", tmp_path)
    folder = tmp_path / "sets" / "dev"
    folder.mkdir(parents=True)
    claim = folder / f"joint-1_4-s{tuning.DEV_SEED}-0123abcd.running"
    claim.touch()
    with pytest.raises(RuntimeError, match="tries of 'joint' on 'sets' to be over"):
        tuning.tuned_rate("sets", "joint")
    claim.unlink()
    assert tuning.tuned_rate("sets", "joint") == tuning.SUITES["sets"].lr
