"""A run repeated from its record: the same plans from the same steps on, and the same weights."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn

from lightning_attnbal.allocate import (
    BanditAllocator,
    FullAllocator,
    InfeasibleMemoryError,
    LastKAllocator,
)
from lightning_attnbal.callbacks import AttentionBalancer
from lightning_attnbal.core import Level
from lightning_attnbal.tracking import CacheUsed, Notice, PlanDecided, Recorder, read_events
from tests.integration.tiny import Classifier, ResumableLoader, fit, same, weights


def record(folder, *, model=None, max_epochs=3, num_batches=10, **settings):
    """A first run, and the file it left."""
    balancer = AttentionBalancer(**{"budget": "50%", **settings})
    model, _ = fit(folder, balancer, model=model, max_epochs=max_epochs, num_batches=num_batches)
    return balancer, weights(model), folder / "attnbal.jsonl"


def repeat(folder, path, *, model=None, budget="50%", max_epochs=3, num_batches=10, **settings):
    balancer = AttentionBalancer(budget, replay=path, **settings)
    model, _ = fit(folder, balancer, model=model, max_epochs=max_epochs, num_batches=num_batches)
    return balancer, weights(model)


def script(balancer):
    """What was decided when, as far as training depends on it."""
    return [
        (d.step, d.why, dict(d.plan), d.plan.lr_factor, d.plan.is_final, d.plan.num_steps)
        for d in balancer.history
    ]


SETTINGS = {
    "default": {},
    "cached": {"allocator": LastKAllocator(1, caches=True)},
    "probed": {"allocator": LastKAllocator(2), "probes": 0.9, "levels": ("frozen", "full")},
}
SLOW_SETTINGS = {
    "bandit": {"allocator": BanditAllocator()},
    "all of it": {"budget": "100%"},
    "other": {"budget": "70%", "calibration_steps": 2, "lr_schedule": "rex", "lr_scaling": None},
}


@pytest.mark.parametrize(
    "settings",
    [
        *(pytest.param(s, id=name) for name, s in SETTINGS.items()),
        *(pytest.param(s, id=name, marks=pytest.mark.slow) for name, s in SLOW_SETTINGS.items()),
    ],
)
def test_replayed_run_is_equal_to_the_last_bit(tmp_path, settings):
    seed_everything(0, verbose=False)
    model = Classifier(dropout=0.1)
    first, before, path = record(tmp_path / "a", model=copy.deepcopy(model), **settings)
    if "probes" in settings:
        assert sum(d.probe_flops for d in first.history) > 0
    rest = {k: v for k, v in settings.items() if k in {"budget", "levels", "lr_schedule"}}
    again, after = repeat(tmp_path / "b", path, model=model, **rest)
    assert same(before, after)
    assert again.spent == first.spent
    assert again.history == first.history
    assert rows_read(again) == rows_read(first)
    assert bool(sum(rows_read(first))) == ("caches=True" in str(settings))


def rows_read(balancer):
    return [e.rows_read for e in balancer.events if isinstance(e, CacheUsed)]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """A run that trains the last two layers, and its file; tests add their own streams beside."""
    folder = tmp_path_factory.mktemp("recorded")
    return record(folder, allocator=LastKAllocator(2), levels=("frozen", "full"))


def test_nothing_is_solved_and_the_source_is_named(tmp_path, monkeypatch, recorded):
    monkeypatch.setattr("lightning_attnbal.callbacks._run.solve", None)
    again, after = repeat(tmp_path, recorded[2])
    assert same(recorded[1], after)
    assert script(again) == script(recorded[0])
    (note,) = (e.text for e in again.events if isinstance(e, Notice))
    assert note == f"The plans are those of {recorded[2]}."


def test_steps_count_and_not_epochs(tmp_path, recorded):
    """Six batches per epoch instead of ten: what was decided at step 10 holds from step 10 on."""
    again, _ = repeat(tmp_path, recorded[2], max_epochs=5, num_batches=6)
    assert script(again) == script(recorded[0])
    assert [d.epoch for d in again.history if d.step in {10, 20}] == [1, 3]


def test_the_last_plan_stays_where_the_record_ends(tmp_path, recorded):
    first = recorded[0].history[0]
    again, _ = repeat(tmp_path, write(tmp_path, [(first.step, first.plan)]), budget="100%")
    assert [d.plan for d in again.history] == [first.plan]
    assert max(e.step for e in again.events) == 30


def test_a_smaller_budget_ends_the_run_earlier(tmp_path, recorded):
    again, _ = repeat(tmp_path, recorded[2], budget="30%")
    assert again.spent <= again.limit
    assert script(again) == script(recorded[0])[: len(again.history)]


def test_time_budget_repeats_the_plans_whatever_steps_take(tmp_path, recorded):
    """And what is replayed can be replayed; costs are told in what is counted."""
    timed, _ = repeat(tmp_path / "a", recorded[2], budget="300s")
    slower, _ = repeat(tmp_path / "b", tmp_path / "a", budget="200s")
    counted, _ = repeat(tmp_path / "c", tmp_path / "b")
    assert script(timed) == script(slower) == script(counted) == script(recorded[0])
    costs = [run.history[0].plan.cost_per_step for run in (timed, slower, counted, recorded[0])]
    assert costs[0] == costs[1] < 1e-3 * costs[3]  # seconds, not FLOPs
    assert costs[2] == pytest.approx(costs[3])


def write(folder: Path, plans, **extra) -> Path:
    """A stream by hand: plans by step."""
    recorder = Recorder(folder / "by_hand.jsonl")
    for step, plan in plans:
        recorder.record(PlanDecided(plan=plan, spent=0.0, remaining=0.0, step=step, **extra))
    return recorder.path


def test_a_final_plan_ends_the_run_early(tmp_path, recorded):
    plan = replace(recorded[0].history[0].plan, is_final=True, num_steps=6)
    again, _ = repeat(tmp_path / "b", write(tmp_path, [(4, plan)]))
    assert again.explain().endswith("Ended: more training is not expected to help.")
    assert max(e.step for e in again.events) == 10


class Noisy(Classifier):
    """Random at every call, in eval mode too: no prefix of it can be cached."""

    def __init__(self):
        super().__init__()
        self.encoder.layers[0].linear2 = Jitter(self.encoder.layers[0].linear2)


class Jitter(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        y = self.inner(x)
        return y + 1e-3 * torch.randn_like(y)


def test_what_cannot_be_cached_here_is_frozen_and_recorded_so(tmp_path, recorded):
    plan = recorded[0].history[0].plan
    cached = replace(plan, levels={**plan, **dict.fromkeys(list(plan)[:3], Level.parse("cached"))})
    by_hand = write(tmp_path, [(4, cached), (12, cached)])
    again, _ = repeat(tmp_path, by_hand, model=Noisy(), budget="80%")
    assert "cached" in map(str, again.history[0].plan.values())
    assert again.history[1].why.startswith("not cached after all: ")
    assert all("cached" not in map(str, d.plan.values()) for d in again.history[1:])
    assert again.history[1].plan.trained == cached.trained
    assert again.history[-1].step == 12
    assert again.spent <= again.limit


class Stop(Callback):
    """Ends the fit before a batch, as an interruption would."""

    def __init__(self, at: int) -> None:
        self.at = at

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.fit_loop.total_batch_idx == self.at:
            raise KeyboardInterrupt


def resumable(folder, *, ckpt=None, stop=None, **settings):
    balancer = AttentionBalancer("60%", **settings)
    callbacks = [ModelCheckpoint(folder, "last", every_n_train_steps=1)]
    model, _ = fit(
        folder,
        balancer,
        loader=ResumableLoader(10),
        ckpt_path=ckpt,
        callbacks=callbacks if stop is None else [*callbacks, Stop(stop)],
        enable_checkpointing=True,
        max_epochs=2,
    )
    return balancer, weights(model)


@pytest.mark.parametrize("at", [10, pytest.param(9, marks=pytest.mark.slow)])
def test_interrupted_replay_goes_on_as_if_nothing_had_happened(tmp_path, at):
    """Also where the file has become the interrupted run's own, as in one and the same folder."""
    (tmp_path / "first").mkdir()
    first, before = resumable(tmp_path / "first", allocator=BanditAllocator())
    path = tmp_path / "attnbal.jsonl"
    path.write_bytes((tmp_path / "first" / "attnbal.jsonl").read_bytes())
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        resumable(tmp_path, replay=path, stop=at)
    assert len(read_events(path)) < len(first.events)
    again, after = resumable(tmp_path, replay=path, ckpt=str(tmp_path / "last.ckpt"))
    assert same(before, after)
    assert script(again) == script(first)
    assert again.spent == first.spent


# -- refused before training starts ----------------------------------------------------------


def expect(folder, path, error, message, **settings):
    model = Classifier()
    before = weights(model)
    with pytest.raises(error, match=message):
        repeat(folder, path, model=model, **settings)
    assert same(before, weights(model))


def test_a_missing_file(tmp_path):
    expect(tmp_path, tmp_path / "no.jsonl", FileNotFoundError, "there is no such file")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("epoch,loss\n1,2\n", "it is none: Expected line 1 to be an event"),
        ('{"kind": "plan_decided"}\n', "it is none: Expected line 1"),
        ("", "it holds no plan"),
        ('{"kind": "notice", "text": "x", "sequence": 0}\n', "it holds no plan"),
        ('{"kind": "notice", "text": "x", "sequence": 7}\n', "its beginning is missing"),
        ("\xff\xfe", "it holds no plan"),
    ],
    ids=["a table", "an unfinished event", "empty", "no plan", "the end of a run", "no text"],
)
def test_no_event_stream(tmp_path, content, message):
    path = tmp_path / "odd.jsonl"
    path.write_text(content, encoding="latin-1")
    expect(tmp_path, path, ValueError, f"`replay` to be the attnbal.jsonl of .*{message}")


def test_another_models_units_are_named(tmp_path, recorded):
    with pytest.raises(MisconfigurationException, match=r"only in the model: encoder.layers.4"):
        repeat(tmp_path / "b", recorded[2], model=Classifier(depth=5))
    with pytest.raises(MisconfigurationException, match=r"only in the file: encoder.layers.3"):
        repeat(tmp_path / "b", recorded[2], model=Classifier(depth=3))


def test_a_level_that_is_not_asked_for(tmp_path):
    _, _, path = record(tmp_path / "a", allocator=LastKAllocator(1, caches=True))
    message = "`levels` to include cached, which plans in .* use, but got frozen, full"
    expect(tmp_path, path, MisconfigurationException, message, levels=("frozen", "full"))


def test_a_unit_that_may_not_train(tmp_path, recorded):
    model = Classifier()
    model.head.requires_grad_(False)
    with pytest.raises(ValueError, match=r"possible on this model, .* unit 'head'"):
        repeat(tmp_path / "b", recorded[2], model=model)


def test_a_plan_that_is_none(tmp_path, recorded):
    plan = recorded[0].history[0].plan
    nothing = replace(plan, levels=dict.fromkeys(plan, Level.parse("frozen")))
    expect(tmp_path, write(tmp_path, [(4, nothing)]), ValueError, "nothing is trained")


def test_a_plan_beyond_the_memory(tmp_path, recorded):
    plan = recorded[0].history[0].plan
    full = replace(plan, levels=dict.fromkeys(plan, Level.parse("full")))
    path = write(tmp_path, [(4, full)])
    message = f"the plan of step 4 in {path}"
    expect(tmp_path, path, InfeasibleMemoryError, message, memory="60KiB")


def test_two_who_decide(tmp_path, recorded):
    with pytest.raises(ValueError, match="one of `allocator` and `replay`"):
        AttentionBalancer("50%", replay=recorded[2], allocator=FullAllocator())


def test_plans_are_data_and_nothing_more(tmp_path, recorded):
    """A stream from outside is parsed and checked: an unknown level is refused by its line."""
    lines = recorded[2].read_text().splitlines()
    number = next(i for i, line in enumerate(lines) if json.loads(line)["kind"] == "plan_decided")
    path = tmp_path / "odd.jsonl"
    lines[number] = lines[number].replace('"full"', '"fulll"', 1)
    path.write_text("\n".join(lines) + "\n")
    expect(tmp_path, path, ValueError, f"Expected line {number + 1} to be an event")
