"""The balancer beside what else people put on a Trainer."""

from __future__ import annotations

import csv
from datetime import timedelta

import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint, Timer
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.tuner import Tuner
from torch.utils.data import DataLoader

from lightning_attnbal.callbacks import AttentionBalancer
from lightning_attnbal.tracking import CostSpent, PlanDecided, RunEnded, RunStarted, read_events
from tests.integration.tiny import BATCH, Classifier, dataset, fit

FEATURES = {
    "early_stopping": {
        "callbacks": [EarlyStopping("val_loss", patience=50)],
        "limit_val_batches": 2,
    },
    "timer": {"callbacks": [Timer(timedelta(hours=1))]},
    "checkpoints": {
        "callbacks": [ModelCheckpoint(every_n_train_steps=7)],
        "enable_checkpointing": True,
    },
    "validation_within_epochs": {"val_check_interval": 0.25, "limit_val_batches": 2},
    "sanity_check": {"limit_val_batches": 2, "num_sanity_val_steps": 2},
    "accumulation": {"accumulate_grad_batches": 2},
    "clipping": {"gradient_clip_val": 0.5},
    "bf16_mixed": {"precision": "bf16-mixed"},
    "limited_batches": {"limit_train_batches": 0.5},
    "max_steps": {"max_steps": 100, "max_epochs": -1},
}


@pytest.mark.parametrize("feature", FEATURES)
def test_budget_is_met_with(tmp_path, feature):
    balancer = AttentionBalancer(budget="40%")
    fit(tmp_path, balancer, num_batches=60, **FEATURES[feature])
    assert 0.97 <= balancer.spent / balancer.limit <= 1
    assert balancer.reference.amount == pytest.approx(balancer.limit.amount / 0.4)


def test_early_stopping_ends_the_run_before_the_budget(tmp_path):
    stop = EarlyStopping("val_loss", stopping_threshold=100.0)
    balancer = AttentionBalancer(budget="40%")
    fit(tmp_path, balancer, num_batches=60, callbacks=[stop], limit_val_batches=2)
    assert balancer.spent / balancer.limit < 0.9


def test_learning_rate_finder_sees_an_inert_balancer(tmp_path):
    import lightning.pytorch as pl

    balancer = AttentionBalancer(budget="40%")
    trainer = pl.Trainer(
        callbacks=[balancer],
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        default_root_dir=tmp_path,
    )
    loader = DataLoader(dataset(40), BATCH)
    Tuner(trainer).lr_find(Classifier(), loader, DataLoader(dataset(8), BATCH), num_training=8)
    assert balancer.spent.amount == 0
    assert balancer.plan is None


def test_logged_metrics_and_event_stream_agree(tmp_path):
    balancer = AttentionBalancer(budget="40%")
    _, trainer = fit(tmp_path, balancer, num_batches=60, logger=CSVLogger(tmp_path))
    with open(f"{trainer.log_dir}/metrics.csv") as file:
        rows = [r for r in csv.DictReader(file) if r["attnbal/budget/spent"]]
    events = read_events(f"{trainer.log_dir}/attnbal.jsonl")
    assert isinstance(events[0], RunStarted)
    assert isinstance(events[-1], RunEnded)
    calibration, *decided = [e.plan for e in events if isinstance(e, PlanDecided)]
    assert {str(level) for level in calibration.values()} == {"full"}
    assert decided == [decision.plan for decision in balancer.history]
    spent = {e.step: e.spent for e in events if isinstance(e, CostSpent)}
    for row in rows:
        step = int(row["step"])
        assert float(row["attnbal/budget/spent"]) == pytest.approx(spent[step], rel=1e-5)
    assert events[-1].spent == balancer.spent.amount


def test_batches_of_different_shapes_are_charged_by_their_own_cost(tmp_path):
    def collate(rows):
        tokens, labels = map(torch.stack, zip(*rows, strict=True))
        return tokens[:, : 2 + int(tokens[0, 0]) % 5], labels

    loader = DataLoader(dataset(240), BATCH, collate_fn=collate)
    balancer = AttentionBalancer(budget="40%")
    fit(tmp_path, balancer, loader=loader)
    assert 0.97 <= balancer.spent / balancer.limit <= 1


def test_explain_names_every_unit_and_the_end(tmp_path):
    balancer = AttentionBalancer(budget="20%")
    fit(tmp_path, balancer, num_batches=60)
    text = balancer.explain()
    assert all(unit in text for unit in balancer.plan)
    assert "20% of the full run" in text
    assert "Ended: the next step would exceed the budget." in text
