"""Jobs, learning rates and the page that is written from them."""

import json
from dataclasses import asdict, dataclass, replace
from functools import partial

import pytest
import torch

from lightning_attnbal.allocate import FullAllocator, Limits, Progress, Segment
from lightning_attnbal.core import CACHED, FROZEN, FULL, Menu, Option, Problem
from lightning_attnbal.measure import flop_counter
from recipes.benchmarks._common import trainer
from recipes.benchmarks.compare import job as jobs
from recipes.benchmarks.compare import report, tuning
from recipes.benchmarks.compare.allocators import Every, ProbeFirst
from recipes.benchmarks.compare.arms import ARMS
from recipes.benchmarks.compare.job import Job, run, smoothed
from recipes.benchmarks.compare.reference import count_full, full_flops
from recipes.benchmarks.compare.tasks import TASKS, Task, Translation, split_by_source
from recipes.text import ReviewsData, TextClassifier, make_synthetic
from tests.recipes.compare.tiny import encoder_folder


@dataclass(frozen=True, kw_only=True)
class Tiny(Task):
    """Made-up sentences, a tiny encoder."""

    folder: str

    def data(self, seed, *, is_dev):
        data = ReviewsData(
            self.folder, 64, num_val=16, num_test=32, batch_size=8, seed=seed,
            load=lambda: make_synthetic(128), by_length=True,
        )  # fmt: skip
        data.setup()
        return data

    def module(self, data, lr):
        return TextClassifier(self.folder, len(data.class_names), lr=lr)


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    task = Tiny(name="tiny", epochs=2, base_lr=1e-3, folder=str(encoder_folder(tmp_path)))
    monkeypatch.setitem(TASKS, "tiny", task)
    for module in (jobs, report, tuning):
        monkeypatch.setattr(module, "FOLDER", tmp_path / "results")
    return task


@pytest.mark.parametrize("arm", ["ours", "full", "last-2-cached", "lora"])
def test_a_run_stays_within_its_share_of_the_full_run(tiny, arm):
    result = run(Job(task="tiny", arm=arm, budget="1/2", seed=0, lr=1e-3))
    assert 0.6 * result["reference_flops"] / 2 < result["flops"] <= result["reference_flops"] / 2
    assert result["steps"] > 0
    assert 0 <= result["scores"]["accuracy"] <= 1
    json.dumps(result)


def test_the_full_run_is_what_torch_counts_in_real_training(tiny, tmp_path):
    data = tiny.data(0, is_dev=False)
    module = tiny.module(data, 1e-3)
    module.log = lambda *_, **__: None
    counted = 0
    for batch in data.train_dataloader():
        with flop_counter() as counter:
            module.training_step(batch).backward()
        counted += counter.get_total_flops()
    assert count_full(tiny, is_dev=False) == 2 * counted
    assert full_flops(tiny, False, tmp_path) == 2 * counted
    assert full_flops(replace(tiny, epochs=4), False, tmp_path) == 4 * counted


def test_a_translation_is_scored_by_chrf_in_percent(tmp_path, monkeypatch):
    task = Translation(
        name="words", epochs=1, base_lr=1e-2, metric="chrf", vocab_size=600, source="synthetic"
    )
    monkeypatch.setitem(TASKS, "words", task)
    monkeypatch.setattr(jobs, "FOLDER", tmp_path)
    result = run(Job(task="words", arm="full", budget="1/10", seed=0, lr=1e-2, is_dev=True))
    assert set(result["scores"]) == {"loss", "bleu", "chrf", "placeholders"}
    assert report.score({**result, "scores": {"chrf": 37.5}}) == 37.5
    assert result["flops"] <= result["reference_flops"] / 10
    pairs = {d: task.data(0, is_dev=d).pairs("en-fr", "test") for d in (False, True)}
    assert pairs[True] == task.data(0, is_dev=True).pairs("en-fr", "val") != pairs[False]


def test_another_configuration_has_another_file(tiny):
    job = Job(task="tiny", arm="full", budget="1/4", seed=0, lr=1e-3)
    others = [
        replace(job, **change)
        for change in ({"seed": 1}, {"lr": 2e-3}, {"budget": "1/3"}, {"arm": "ours"})
    ]
    assert len({job.path, *(other.path for other in others)}) == 5


def note_try(budget, lr, score):
    job = Job(task="tiny", arm="full", budget=budget, seed=tuning.DEV_SEED, lr=lr, is_dev=True)
    job.path.parent.mkdir(parents=True, exist_ok=True)
    job.path.write_text(json.dumps({**asdict(job), "scores": {"accuracy": score}}))
    return job


def test_the_best_rate_of_the_tries_is_taken(tiny, tmp_path):
    tries = tuning.grid("tiny", "full")
    assert tries == [5e-4, 1e-3, 2e-3]
    assert tuning.tuned_rate("tiny", "full", "1/3") == 1e-3
    for lr, score in zip(tries, (0.3, 0.2, 0.6), strict=True):
        job = note_try("1/4", lr, score)
    assert tuning.tuned_rate("tiny", "full", "1/3") == 2e-3
    job.path.rename(job.path.with_stem("full-of-another-revision"))
    assert tuning.tuned_rate("tiny", "full", "1/3") == 1e-3


def test_the_rate_is_that_of_the_nearest_budget_tried(tiny):
    for budget, best in (("1/4", 5e-4), ("1", 2e-3)):
        for lr in tuning.grid("tiny", "full"):
            note_try(budget, lr, float(lr == best))
    rates = {b: tuning.tuned_rate("tiny", "full", b) for b in ("1/8", "1/3", "3/5", "1")}
    assert rates == {"1/8": 5e-4, "1/3": 5e-4, "3/5": 2e-3, "1": 2e-3}


def test_rates_beyond_the_edge_are_tried_next(tiny):
    note = partial(note_try, "1/4")
    beyond = partial(tuning.beyond_the_edge, "tiny", "full", "1/4")
    assert beyond() is None
    for lr, score in ((5e-4, 0.3), (1e-3, 0.2), (2e-3, 0.1)):
        note(lr, score)
    assert beyond() == 2.5e-4
    assert tuning.beyond_the_edge("tiny", "full", "1/2") is None
    note(2.5e-4, 0.25)
    assert beyond() is None
    note(1e-3, 0.1)
    note(2e-3, 0.9)
    assert beyond() == 4e-3
    note(4e-3, 1.0)
    assert beyond() == 8e-3
    note(8e-3, 1.1)
    assert beyond() is None


def test_changed_settings_of_task_or_arm_have_another_file(tiny, monkeypatch):
    job = Job(task="tiny", arm="full", budget="1/4", seed=0, lr=1e-3)
    before = job.path
    monkeypatch.setitem(jobs.ARMS, "full", replace(jobs.ARMS["full"], lr_factor=3.0))
    changed = job.path
    monkeypatch.setitem(TASKS, "tiny", replace(tiny, epochs=3))
    assert len({before, changed, job.path}) == 3


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_what_a_task_goes_without_are_arms(task):
    assert set(task.without) < set(jobs.ARMS)


@pytest.mark.parametrize("arm", jobs.ARMS)
def test_settings_are_told_by_values(arm):
    assert " at 0x" not in repr(jobs.ARMS[arm])


def test_a_random_plan_stays_and_another_seed_draws_another(tiny):
    plans = []
    for seed in range(3):
        result = run(Job(task="tiny", arm="random", budget="1", seed=seed, lr=1e-3))
        (plan,) = {decision["plan"] for decision in result["decisions"]}
        plans.append(plan)
    assert len(set(plans)) > 1


def test_dev_rows_are_training_rows():
    items = ["train"] * 30 + ["test"] * 10
    rows = split_by_source(items, (30, 1, 10), num_dev=5)
    assert {items[i] for i in rows["test"]} == {"train"}
    assert not set(rows["train"]) & set(rows["test"])
    assert {items[i] for i in split_by_source(items, (30, 1, 10))["test"]} == {"test"}


def runs(*scores):
    """Of a task whose metric is macro-F1."""
    return {
        seed: {"task": "reviews", "scores": {"macro_f1": score, "accuracy": 0.1}}
        for seed, score in enumerate(scores)
    }


def test_paired_difference():
    mean, half, num = report.paired(runs(0.5, 0.7), runs(0.4, 0.5))
    assert (round(mean, 6), num) == (15.0, 2)
    assert half == pytest.approx(12.706 * 5.0, rel=1e-3)
    assert report.paired(runs(0.5), {}) is None


def test_times_are_ratios_over_paired_seeds():
    def timed(seconds, flops):
        return {0: {"cpu_seconds": seconds, "flops": flops, "reference_flops": 100.0}}

    alone = {1: {"cpu_seconds": 99.0, "flops": 25.0, "reference_flops": 100.0}}
    table = {("ours", "1/4"): timed(30.0, 25.0) | alone, ("ours", "1/2"): timed(55.0, 50.0)}
    assert report.times(table, ["1/4", "1/2"]) == []
    table |= {("full", "1/4"): timed(24.0, 25.0), ("full", "1"): timed(100.0, 100.0)}
    assert report.times(table, ["1/4", "1/2"])[4:] == [
        "| 1/4 | 0.250 | 0.300 | 1.250 |",
        "| 1/2 | 0.500 | 0.550 |  |",
    ]


@pytest.mark.parametrize(
    ("mean", "half", "text"),
    [(1.0, 0.5, "**+1.00 ± 0.50**"), (-0.2, 0.5, "-0.20 ± 0.50"), (1.0, float("inf"), "+1.00")],
    ids=["significant", "not", "one seed"],
)
def test_signed(mean, half, text):
    assert report.signed(mean, half) == text


def test_smoothed_keeps_the_mean():
    losses = torch.rand(100).tolist()
    assert sum(smoothed(losses, 10)) / 10 == pytest.approx(sum(losses) / 100)


def test_the_page_is_what_the_results_say():
    assert (report.HERE / "RESULTS.md").read_text(encoding="utf-8") == report.page(report.tables())


def a_problem(budget=1000.0):
    """Three units that cost 1 forward and 1 for weights and for what is below, each."""
    low = (
        Option(level=CACHED, cost=0.0, once=50.0),
        Option(level=FROZEN, cost=1.0, cost_above=1.0),
        Option(level=FULL, cost=3.0, cost_above=2.0, value=1.0),
    )
    head = Menu("head", (Option(level=FULL, cost=2.0, value=1.0),))
    return Problem((Menu("low", low), Menu("high", low), head)), Limits(
        remaining=budget, epoch_steps=50
    )


def test_probing_first_takes_its_passes_on_the_cache_and_then_trains_everything():
    problem, limits = a_problem()
    probe = ProbeFirst(passes=2)
    first = probe(problem, limits)
    assert [str(first[u]) for u in ("low", "high", "head")] == ["cached", "cached", "full"]
    assert (first.num_steps, first.is_final) == (100, False)
    half = Progress(segments=(Segment(trained=("head",), steps=40),))
    assert probe(problem, replace(limits, remaining=820), first, half).num_steps == 60
    over = Progress(segments=(Segment(trained=("head",), steps=100),))
    then = probe(problem, replace(limits, remaining=700), first, over)
    assert [str(then[u]) for u in ("low", "high", "head")] == ["full"] * 3


def test_a_linear_probe_trains_the_head_alone_and_ends(tiny):
    result = run(Job(task="tiny", arm="linear-probe", budget="20", seed=0, lr=1e-3))
    assert result["steps"] == 1 + 20 * 8  # the first one calibrates
    assert result["left"] > 0.5
    assert {d["plan"].split(" · ")[-1] for d in result["decisions"]} == {"full: head"}


def test_probing_alone_hands_the_rest_of_the_budget_back():
    plan = ProbeFirst(passes=2, is_all=True)(*a_problem())
    assert (plan.num_steps, plan.is_final) == (100, True)


def test_deciding_every_so_often_cuts_the_plans_steps():
    problem, limits = a_problem()
    assert Every(FullAllocator(), 7)(problem, limits).num_steps == 7
    longest = FullAllocator()(problem, limits).num_steps
    assert Every(FullAllocator(), 10_000)(problem, limits).num_steps == longest > 7


def test_no_debiasing_measures_on_the_same_batch(tiny):
    data = tiny.data(0, is_dev=False)
    flops = full_flops(tiny, False, jobs.FOLDER / "tiny")
    found = {}
    for name in ("ours", "no-debiasing"):
        torch.manual_seed(0)
        module = tiny.module(data, 1e-3)
        attached = ARMS[name].attach(module, flops / 2)
        fit = trainer(attached.callbacks, jobs.FOLDER, max_epochs=-1, limit_val_batches=0)
        fit.fit(module, datamodule=data)
        worth = attached.balancer._run.session.worth
        found[name] = sum(c.mean for c in worth._meter.compute().values())
    assert found["no-debiasing"] > found["ours"]  # noise meets itself


def test_a_run_says_what_it_handed_back_and_whether_it_trained_as_planned(tiny):
    result = run(Job(task="tiny", arm="ours", budget="1/2", seed=0, lr=1e-3))
    assert result["ended"]
    assert 0 <= result["left"] < 1
    assert (result["engagement"]["idle"], result["engagement"]["leaked"]) == ([], [])


def a_run(arm, **changes):
    told = {"idle": [], "leaked": []}
    about = {"arm": arm, "budget": "1", "seed": 0, "left": 0.0, "ended": "", "engagement": told}
    return {**about, "task": "banking77", "scores": {"accuracy": 0.9}, **changes}


def test_the_page_tells_of_budget_handed_back_and_of_runs_that_did_not_do_as_they_say():
    odd = a_run("lisa", engagement={"idle": ["a"], "leaked": ["b", "c"]})
    ours = {0: a_run("ours", left=0.4, ended="nothing left to gain"), 1: a_run("ours", left=0.001)}
    table = {("ours", "1"): ours, ("lisa", "1"): {0: odd}}
    assert report.ends(table)[2:] == ["| 1 | 0 | 40% | nothing left to gain |"]
    lines = report.engagement(table)
    assert "2 of 3 runs" in lines[0]
    assert lines[1:] == ["- lisa, 1, seed 0: 1 parameters should have moved, 2 should not have."]


def test_regret_is_against_the_best_static_arm():
    table = {
        ("ours", "1/2"): {s: a_run("ours", scores={"accuracy": 0.9 + s / 100}) for s in (0, 1)},
        ("last-2", "1/2"): {s: a_run("last-2", scores={"accuracy": 0.89}) for s in (0, 1)},
        ("full", "1/2"): {0: a_run("full", scores={"accuracy": 0.5})},
        ("lisa", "1/2"): {0: a_run("lisa", scores={"accuracy": 0.99})},
    }
    ((cost, mean, half),) = report.regret_points(table)
    assert (cost, mean) == (0.5, pytest.approx(1.5))
    assert half > 0
