"""A second look at a batch costs little, teaches the allocator, and leaves training alone."""

from __future__ import annotations

import copy
import csv
import threading

import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from torch.utils.data import DataLoader

from lightning_attnbal.allocate import FullAllocator, LastKAllocator
from lightning_attnbal.callbacks import AttentionBalancer
from tests.integration.tiny import BATCH, Classifier, Spy, dataset, fit, same, weights

SLOW = pytest.mark.slow
SHALLOW = {"lr_schedule": None, "calibration_steps": 2}
NUM = {"num_batches": 8, "max_epochs": 4}
NUM_STEPS = 8 * 4


def run(folder, probes, *, model=None, k=2, caches=False, **options):
    """A fixed shallow plan whose end is the Trainer's, not the budget's."""
    spy = Spy(LastKAllocator(k, caches=caches))
    balancer = AttentionBalancer("95%", allocator=spy, probes=probes, **SHALLOW)
    model, trainer = fit(folder, balancer, model=model, **{**NUM, **options})
    return balancer, spy, model, trainer


def values_of(problem):
    return {m.unit: max(option.value for option in m.options) for m in problem.menus}


@pytest.mark.parametrize(
    ("share", "caches"), [(0.2, False), (0.02, True)], ids=["frozen", "cached"]
)
def test_probes_cost_at_most_their_share_and_are_charged(tmp_path, share, caches):
    spent = {}
    for probes in (0.0, share):
        balancer, _, _, trainer = run(tmp_path / str(probes), probes, caches=caches)
        assert trainer.global_step == NUM_STEPS
        spent[probes] = balancer.spent.amount
    charged = spent[share] - spent[0.0]
    assert charged <= share * spent[share]
    full_batch = balancer.reference.amount / NUM_STEPS
    assert charged / full_batch == pytest.approx(round(charged / full_batch))  # whole batches
    assert charged >= full_batch * (2 if share == 0.2 else 0)


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({}, id="plain", marks=SLOW),
        pytest.param({"model": {"dropout": 0.2}}, id="dropout"),
        pytest.param({"accumulate_grad_batches": 2}, id="accumulation", marks=SLOW),
        pytest.param({"precision": "bf16-mixed"}, id="bf16", marks=SLOW),
        pytest.param(
            {"gradient_clip_val": 0.1, "limit_val_batches": 1},
            id="clipping and validation",
            marks=SLOW,
        ),
    ],
)
def test_training_does_not_notice_a_probe(tmp_path, options):
    model_options = dict(options).pop("model", {})
    trainer_options = {k: v for k, v in options.items() if k != "model"}
    found = {}
    for probes in (0.0, 0.4):
        torch.manual_seed(0)
        model = Classifier(**model_options)
        balancer, _, model, trainer = run(
            tmp_path / str(probes), probes, model=model, **trainer_options
        )
        found[probes] = (weights(model), trainer.optimizers[0].state_dict(), balancer)
    assert found[0.4][2].spent > found[0.0][2].spent
    assert same(found[0.0][0], found[0.4][0])
    states = [state["state"] for _, state, _ in found.values()]
    for one, other in zip(*(s.values() for s in states), strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    "caches", [pytest.param(False, marks=SLOW), True], ids=["frozen", "cached"]
)
def test_probes_tell_what_frozen_units_would_be_worth(tmp_path, caches):
    decided = []
    for probes in (0.0, 0.5):
        balancer, spy, *_ = run(tmp_path / str(probes), probes, caches=caches)
        asked = zip(balancer.history, spy.problems[-len(balancer.history) :], strict=True)
        decided.append([(d.why, values_of(problem)) for d, problem in asked])
    assert decided[0][0] == decided[1][0]  # nothing was probed before
    aged, measured = (
        [
            [values[f"encoder.layers.{i}"] for i in range(3)]
            for why, values in d
            if why == "epoch end"
        ]
        for d in decided
    )
    assert len(aged) == len(measured) == 3
    for k in range(3):
        assert aged[k] != measured[k]
        assert measured[k] != measured[k - 1]


def test_nothing_is_probed_where_everything_trains_or_the_rest_may_not(tmp_path):
    frozen = Classifier()
    frozen.embedding.requires_grad_(False)
    for name, allocator, model in (
        ("all train", FullAllocator(), Classifier()),
        ("the rest may not", LastKAllocator(5), frozen),
    ):
        spent = []
        for probes in (0.0, 0.5):
            balancer = AttentionBalancer("60%", allocator=allocator, probes=probes, **SHALLOW)
            fit(tmp_path / name, balancer, model=copy.deepcopy(model), num_batches=6)
            spent.append(balancer.spent)
        assert spent[0] == spent[1], name


class Logging(Classifier):
    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        self.log_dict({"sum": loss, "count": torch.ones(())}, on_epoch=True, reduce_fx="sum")
        return loss


def test_a_probe_logs_nothing(tmp_path):
    rows = []
    for probes in (0.0, 0.5):
        folder = tmp_path / str(probes)
        model = Logging()
        run(folder, probes, model=model, logger=CSVLogger(folder), log_every_n_steps=1)
        with open(folder / "lightning_logs" / "version_0" / "metrics.csv") as file:
            rows.append(
                [
                    {k: v for k, v in row.items() if not k.startswith("attnbal")}
                    for row in csv.DictReader(file)
                ]
            )
        assert "log" not in vars(model)
        assert "log_dict" not in vars(model)
    assert rows[0] == rows[1]
    assert {row["count_epoch"] for row in rows[0]} == {"", "8.0"}


class Once(Classifier):
    """Does something odd with a batch that it sees again."""

    def __init__(self, *, fails=True):
        super().__init__()
        self.fails, self.seen = fails, set()

    def training_step(self, batch, batch_idx):
        key = (self.trainer.current_epoch, batch_idx)
        if key not in self.seen:
            self.seen.add(key)
            return super().training_step(batch, batch_idx)
        if self.fails:
            raise RuntimeError("seen before")
        return None


def test_a_second_look_that_fails_warns_once_and_training_goes_on(tmp_path):
    with pytest.warns(UserWarning, match="not probed from now on.*RuntimeError: seen before") as w:
        _, _, model, trainer = run(tmp_path, 0.5, model=Once())
    assert sum("not probed" in str(warning.message) for warning in w) == 1
    assert trainer.global_step == NUM_STEPS
    _, _, plain, _ = run(tmp_path, 0.0)
    assert same(weights(model), weights(plain))


def test_a_second_look_without_a_loss_is_such_a_failure(tmp_path):
    message = "not probed.*TypeError: Expected `training_step` to return a loss, but got NoneType"
    with pytest.warns(UserWarning, match=message):
        run(tmp_path, 0.9, model=Once(fails=False))


def dictionaries(rows):
    tokens, labels = map(torch.stack, zip(*rows, strict=True))
    return {"tokens": tokens, "labels": labels, "names": ["a"] * len(rows)}


class Popping(Classifier):
    """Takes the batch apart, with arguments of other names."""

    def training_step(self, inputs, number):
        assert isinstance(number, int)
        inputs.pop("names")
        return super().training_step((inputs.pop("tokens"), inputs.pop("labels")), number)


class Alone(Classifier):
    """Does not ask for the number of the batch."""

    def training_step(self, batch):
        return {"loss": super().training_step(tuple(batch.values())[:2], 0), "more": 1}


@pytest.mark.parametrize("kind", [Popping, pytest.param(Alone, marks=SLOW)])
def test_batches_that_are_taken_apart_are_probed(tmp_path, kind):
    spent = []
    for probes in (0.0, 0.5):
        loader = DataLoader(dataset(8 * BATCH), BATCH, collate_fn=dictionaries)
        balancer, *_ = run(tmp_path / str(probes), probes, model=kind(), loader=loader)
        spent.append(balancer.spent)
    assert spent[1] > spent[0]


def uncopyable(rows):
    return {**dictionaries(rows), "lock": threading.Lock()}


def test_batches_that_cannot_be_copied_are_trained_on_all_the_same(tmp_path):
    loader = DataLoader(dataset(8 * BATCH), BATCH, collate_fn=uncopyable)
    with pytest.warns(UserWarning, match="not probed.*a batch cannot be copied: TypeError") as w:
        *_, trainer = run(tmp_path, 0.5, model=Alone(), loader=loader)
    assert trainer.global_step == NUM_STEPS
    assert sum("not probed" in str(warning.message) for warning in w) == 1


@pytest.mark.parametrize("probes", [-0.1, 1.0])
def test_a_share_out_of_range_is_refused(probes):
    with pytest.raises(ValueError, match=r"Expected `probes` to be in \[0, 1\), but got"):
        AttentionBalancer("50%", probes=probes)
