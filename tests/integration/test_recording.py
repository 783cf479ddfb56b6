"""What a real fit writes down about its time, its scores, its choices and its attention."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from lightning.pytorch.callbacks import Checkpoint

from lightning_attnbal.callbacks import AttentionBalancer
from lightning_attnbal.callbacks._stopwatch import PARTS
from lightning_attnbal.measure.attention import AttentionMeter
from lightning_attnbal.tracking import (
    AttentionMeasured,
    FrontierSolved,
    PlanDecided,
    RunEnded,
    ScoresMeasured,
    TimeSpent,
    read_events,
)
from tests.integration.tiny import (
    Classifier,
    ResumableLoader,
    fit,
    same,
    trained_before,
    weights,
)

EPOCHS = 3


def pick(events, kind):
    return [event for event in events if isinstance(event, kind)]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """(balancer, trainer, folder) of a fit with validation whose budget lasts to the end."""
    folder = tmp_path_factory.mktemp("run")
    balancer = AttentionBalancer(budget="95%")
    torch.manual_seed(0)
    model = trained_before(Classifier(depth=2))
    _, trainer = fit(folder, balancer, model=model, max_epochs=EPOCHS, limit_val_batches=1.0)
    return balancer, trainer, folder


def test_the_file_holds_what_the_balancer_shows(run):
    balancer, _, folder = run
    assert read_events(folder / "attnbal.jsonl") == list(balancer.events)
    assert isinstance(balancer.events[-1], RunEnded)


def test_time_is_told_at_every_epoch_and_sums_to_that_of_the_fit(run):
    balancer, _, _ = run
    told = pick(balancer.events, TimeSpent)
    assert [event.epoch for event in told[:EPOCHS]] == list(range(EPOCHS))
    assert sum(told[-1].seconds.values()) == pytest.approx(balancer.seconds.amount, abs=0.05)
    for before, after in pairwise(told):
        assert all(after.seconds[part] >= before.seconds[part] for part in PARTS)


def test_every_part_that_happens_takes_time(run):
    seconds = pick(run[0].events, TimeSpent)[-1].seconds
    assert tuple(seconds) == PARTS
    assert min(seconds.values()) >= 0
    missing = {part for part in PARTS if not seconds[part]}
    assert missing <= {"cache", "probes"}


def test_scores_are_those_the_module_logged(run):
    balancer, trainer, _ = run
    told = pick(balancer.events, ScoresMeasured)
    assert [event.epoch for event in told[:EPOCHS]] == list(range(EPOCHS))
    logged = {name: float(trainer.callback_metrics[name]) for name in ("train_loss", "val_loss")}
    assert told[-1].scores == logged


def test_every_decision_comes_with_what_it_chose_from(run):
    decisions = pick(run[0].events, PlanDecided)[1:]  # the first is calibration
    choices = pick(run[0].events, FrontierSolved)
    assert [event.step for event in choices] == [event.step for event in decisions]
    for choice, decision in zip(choices, decisions, strict=True):
        costs = [point.cost for point in choice.points]
        assert costs == sorted(costs)
        (chosen,) = (point for point in choice.points if point.is_chosen)
        assert (chosen.loss, chosen.error) == decision.plan.forecast
        assert all(math.isfinite(point.steps) for point in choice.points)


def test_what_was_compared_is_not_kept_in_checkpoints(run):
    decision = run[0].history[-1]
    assert decision.plan.alternatives
    assert "alternatives" not in decision.to_dict()["plan"]


def test_attention_is_told_once_an_epoch(run):
    told = pick(run[0].events, AttentionMeasured)
    assert [event.epoch for event in told] == list(range(EPOCHS))
    layers = [f"encoder.layers.{i}.self_attn" for i in range(2)]
    assert list(told[0].entropy) == list(told[0].importance) == layers
    assert all(len(heads) == 2 for heads in told[0].entropy.values())


def test_weights_are_those_of_a_fit_that_is_not_looked_at(run, tmp_path, monkeypatch):
    def end(folder):
        torch.manual_seed(0)
        model = trained_before(Classifier(depth=2, dropout=0.1))
        return weights(fit(folder, AttentionBalancer(budget="60%"), model=model)[0])

    looked_at = end(tmp_path / "seen")
    monkeypatch.setattr(AttentionMeter, "start", lambda self, leave_out=(): None)
    assert same(looked_at, end(tmp_path / "unseen"))


def test_a_failing_step_leaves_no_hooks(tmp_path):
    class Failing(Classifier):
        def forward(self, tokens):
            super().forward(tokens)
            raise RuntimeError("out of luck")

    model = Failing(depth=2)
    with pytest.raises(RuntimeError, match="out of luck"):
        fit(tmp_path, AttentionBalancer(budget="60%"), model=model)
    assert all(not m._forward_hooks and not m._forward_pre_hooks for m in model.modules())


def test_a_resumed_run_goes_on_with_its_totals(tmp_path):
    path = tmp_path / "step 14.ckpt"

    class Saver(Checkpoint):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            if trainer.global_step == 14:
                trainer.save_checkpoint(path)

    balancer, options = AttentionBalancer(budget="95%"), {"enable_checkpointing": True}
    model = trained_before(Classifier(depth=2))
    loader = ResumableLoader(10)
    fit(tmp_path / "a", balancer, model=model, loader=loader, callbacks=[Saver()], **options)
    before = pick(balancer.events, TimeSpent)[0]  # the end of epoch 0

    resumed, loader = AttentionBalancer(budget="95%"), ResumableLoader(10)
    model = Classifier(depth=2)
    fit(tmp_path / "b", resumed, model=model, loader=loader, ckpt_path=str(path), **options)
    told = pick(resumed.events, TimeSpent)
    assert [event.epoch for event in told[:2]] == [1, 2]
    assert all(told[0].seconds[part] >= before.seconds[part] for part in PARTS)
    assert told[-1].seconds["forward"] > told[0].seconds["forward"]
    assert sum(told[-1].seconds.values()) == pytest.approx(resumed.seconds.amount, abs=0.2)
    epochs = [event.epoch for event in pick(resumed.events, AttentionMeasured)]
    assert epochs == [2]  # epoch 1 was looked at before


def test_bar_shows_the_budget_and_is_left_as_it_was(tmp_path, capsys):
    balancer = AttentionBalancer(budget="40%")
    options = {"enable_progress_bar": True, "log_every_n_steps": 1}
    _, trainer = fit(tmp_path, balancer, model=trained_before(Classifier(depth=2)), **options)
    said = capsys.readouterr()
    text = said.out + said.err
    assert "attnbal: step" in text
    assert "budget" in text
    assert "plan" in text
    assert "get_metrics" not in vars(trainer.progress_bar_callback)


def test_without_a_bar_nothing_is_said(tmp_path, capsys):
    balancer = AttentionBalancer(budget="40%")
    fit(tmp_path, balancer, model=trained_before(Classifier(depth=2)))
    assert "attnbal" not in capsys.readouterr().out
