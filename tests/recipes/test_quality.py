"""Tables of the recipes say what the result files say; a launch is what its arguments say."""

import pytest

from recipes.benchmarks.quality import report
from recipes.benchmarks.quality.plan import MEASURED, Launch, launches
from recipes.train import compose_run


def made(balanced, short):
    """Runs as they are kept: macro-F1 of two tasks, over seeds."""

    def runs(pairs):
        return {
            seed: {
                "headline": {"a": "macro_f1", "b": "macro_f1"},
                "scores": {"a/macro_f1": a, "b/macro_f1": b},
                "cpu_seconds": 60.0,
                "machine": {"cpu": "a machine", "torch": "2"},
                "baselines": {},
            }
            for seed, (a, b) in enumerate(pairs)
        }

    return {("balanced", "25%"): runs(balanced), ("short", "25%"): runs(short)}


def test_differences_are_paired_and_bold_where_their_interval_leaves_out_zero(monkeypatch):
    table = made(
        balanced=[(0.50, 0.70), (0.60, 0.80), (0.40, 0.60)],
        short=[(0.45, 0.69), (0.55, 0.79), (0.35, 0.59)],
    )
    monkeypatch.setattr(report, "load", lambda name: table)
    rows = [line for line in report.section("text").splitlines() if line.startswith("| ")]
    assert rows[1].startswith("| ours | 25% | 1.0 | 50 ± ")
    assert rows[2].rstrip(" |").endswith("**+3.00 ± 0.00** | **+5.00 ± 0.00**")  # mean, worst task


def test_nothing_measured_is_nothing_said(monkeypatch):
    monkeypatch.setattr(report, "load", lambda name: {})
    assert report.section("text") == ""


@pytest.mark.parametrize("name", MEASURED)
def test_every_launch_composes_at_the_budget_it_says(name):
    for launch in launches(name, ("balanced", "full"), (3,)):
        config = compose_run(launch.overrides)
        assert (config.recipe, config.budget, config.seed) == (launch.recipe, launch.budget, 3)


def test_another_run_has_another_file():
    paths = {Launch(name="text", kind="short", budget=b, seed=s).path for b in "12" for s in (0, 1)}
    assert len(paths) == 4


@pytest.mark.parametrize("name", MEASURED)
def test_pages_hold_what_was_measured(name):
    page = report.page_of(name).read_text(encoding="utf-8")
    assert report.with_section(page, name) == page
    assert report.BEGIN.format(name) in page
