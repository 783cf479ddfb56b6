"""Jobs, learning rates and the page that is written from them."""

import json
from dataclasses import asdict, dataclass, replace
from functools import partial

import pytest
import torch

from lightning_attnbal.measure import flop_counter
from recipes.benchmarks.compare import job as jobs
from recipes.benchmarks.compare import report, tuning
from recipes.benchmarks.compare.job import Job, run, smoothed
from recipes.benchmarks.compare.reference import count_full, full_flops
from recipes.benchmarks.compare.tasks import TASKS, Task, split_by_source
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


def test_another_configuration_has_another_file(tiny):
    job = Job(task="tiny", arm="full", budget="1/4", seed=0, lr=1e-3)
    others = [
        replace(job, **change)
        for change in ({"seed": 1}, {"lr": 2e-3}, {"budget": "1/3"}, {"arm": "ours"})
    ]
    assert len({job.path, *(other.path for other in others)}) == 5


def test_the_best_rate_of_the_tries_is_taken(tiny, tmp_path):
    tries = tuning.grid("tiny", "full")
    assert tries == [5e-4, 1e-3, 2e-3]
    assert tuning.tuned_rate("tiny", "full") == 1e-3
    for lr, score in zip(tries, (0.3, 0.2, 0.6), strict=True):
        job = Job(task="tiny", arm="full", budget="1/4", seed=tuning.DEV_SEED, lr=lr, is_dev=True)
        job.path.parent.mkdir(parents=True, exist_ok=True)
        job.path.write_text(json.dumps({**asdict(job), "scores": {"accuracy": score}}))
    assert tuning.tuned_rate("tiny", "full") == 2e-3
    job.path.rename(job.path.with_stem("full-of-another-revision"))
    assert tuning.tuned_rate("tiny", "full") == 5e-4


def test_rates_beyond_the_edge_are_tried_next(tiny):
    def note(lr, score):
        job = Job(task="tiny", arm="full", budget="1/4", seed=tuning.DEV_SEED, lr=lr, is_dev=True)
        job.path.parent.mkdir(parents=True, exist_ok=True)
        job.path.write_text(json.dumps({**asdict(job), "scores": {"accuracy": score}}))

    beyond = partial(tuning.beyond_the_edge, "tiny", "full", ["1/4"])
    assert beyond() is None
    for lr, score in ((5e-4, 0.3), (1e-3, 0.2), (2e-3, 0.1)):
        note(lr, score)
    assert beyond() == 2.5e-4
    assert tuning.beyond_the_edge("tiny", "full", ["1/4", "1/2"]) is None
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
    assert (report.HERE / "RESULTS.md").read_text(encoding="utf-8") == report.page()
