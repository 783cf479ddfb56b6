"""Several tasks under one budget, with a real Trainer."""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import replace
from itertools import cycle, pairwise
from pathlib import Path

import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader

from lightning_attnbal.allocate import (
    CurvePrior,
    ForecastAllocator,
    FullAllocator,
    LastKAllocator,
)
from lightning_attnbal.callbacks import AttentionBalancer, TaskScheduler, TaskSettings
from lightning_attnbal.callbacks._task_plans import TaskPlans
from lightning_attnbal.multitask import BanditShares, Proportional, Stopping, TaskLoader, Uniform
from lightning_attnbal.tracking import (
    AffinityMeasured,
    PlanDecided,
    SharesDecided,
    TasksServed,
    read_events,
)
from tests.integration.tasks_run import (
    BATCH,
    WIDTH,
    TwoHeads,
    fit,
    loaders,
    make_trainer,
    rows,
    trained_before,
)
from tests.integration.tiny import same, weights

without_saver = pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")


class Watch(Callback):
    """Which trunk units moved in the steps of which task."""

    def __init__(self) -> None:
        self.moved: list[tuple[str, frozenset[str], frozenset[str]]] = []

    def setup(self, trainer, pl_module, stage):
        self.balancer = next(c for c in trainer.callbacks if isinstance(c, AttentionBalancer))

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.before = weights(pl_module)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        (task,) = batch
        after = pl_module.state_dict()
        moved = {n for n, t in self.before.items() if not torch.equal(t, after[n])}
        units = {unit.name for unit in self.balancer.units if moved.intersection(unit.parameters)}
        plans = [d.plan for d in self.balancer.history if d.plan.task == task]
        trained = frozenset(plans[-1].trained) if plans else frozenset()
        self.moved.append((task, frozenset(units), trained))


@pytest.mark.parametrize(
    ("share", "levels"),  # at 30 %, cached steps are so cheap that the last epoch ends the run
    [
        ("30%", ("frozen", "full")),
        ("60%", ("frozen", "full")),
        ("60%", ("cached", "frozen", "full")),
    ],
)
def test_ends_within_the_budget_although_steps_differ_tenfold(tmp_path, share, levels):
    balancer = AttentionBalancer(share, tasks=TaskSettings(), levels=levels)
    fit(tmp_path, balancer, max_epochs=6)
    dearest = max(d.plan.cost_per_step for d in balancer.history)
    assert balancer.limit is not None
    assert balancer.spent <= balancer.limit
    assert balancer.spent.amount >= balancer.limit.amount - 2 * dearest


def test_a_task_trains_what_its_plan_says(tmp_path):
    watch = Watch()
    balancer = AttentionBalancer("30%", tasks=TaskSettings(), levels=("frozen", "full"))
    fit(tmp_path, watch, balancer, max_epochs=6)
    planned = [(moved, trained) for _, moved, trained in watch.moved[:-1] if trained]
    assert planned
    for moved, trained in planned:
        assert moved <= trained | {"head"}


def test_reach_of_one_keeps_the_shares_of_the_data(tmp_path):
    data = loaders(5, 3, length=6)
    data["extra"] = DataLoader(rows(3 * BATCH, 6, seed=2), BATCH)
    balancer = AttentionBalancer("60%", tasks=TaskSettings(reach=1.0))
    model = trained_before(TwoHeads(("short", "long", "extra")))
    fit(tmp_path, balancer, model=model, data=data, max_epochs=3)
    assert balancer.shares == {"short": 5 / 11, "long": 3 / 11, "extra": 3 / 11}
    assert Counter(model.served[:11]) == {"short": 5, "long": 3, "extra": 3}


def test_with_the_full_allocator_every_task_trains_everything_to_the_end(tmp_path):
    settings = TaskSettings(reach=1.0)
    balancer = AttentionBalancer("30%", tasks=settings, allocator=FullAllocator())
    free = AttentionBalancer("30%", tasks=settings, levels=("frozen", "full"))
    for name, each in (("full", balancer), ("free", free)):
        fit(tmp_path / name, each, model=trained_before(TwoHeads()), max_epochs=6)
    frozen = [{unit.name for unit in balancer.units} - set(d.plan.trained) for d in free.history]
    assert any(frozen), "a plan that freezes something would have been chosen"
    assert len(balancer.history) >= 4
    for decision in balancer.history:
        assert set(decision.plan.trained) == {unit.name for unit in balancer.units}


@pytest.mark.parametrize("parallel", ["off", "ranks"])
def test_an_allocator_that_nobody_would_ask_is_refused(parallel):
    tasks = TaskSettings(parallel=parallel)
    with pytest.raises(ValueError, match=r"FullAllocator where tasks take turns.*LastKAllocator"):
        AttentionBalancer("50%", tasks=tasks, allocator=LastKAllocator(2))
    AttentionBalancer("50%", tasks=TaskSettings(parallel="heads"), allocator=LastKAllocator(2))


@pytest.mark.parametrize("option", [{"hysteresis": 2.0}, {"fits": False}, {"resolution": 10}])
def test_settings_that_nobody_would_look_at_are_refused(option):
    ((name, value),) = option.items()
    words = (
        rf"Expected `{name}` of the ForecastAllocator .* where tasks take turns, but got {value}"
    )
    with pytest.raises(ValueError, match=words):
        AttentionBalancer("50%", tasks=TaskSettings(), allocator=ForecastAllocator(**option))
    prior = ForecastAllocator(prior=CurvePrior(passes=9))
    AttentionBalancer("50%", tasks=TaskSettings(), allocator=prior)


def test_what_rests_is_thawed_for_more_than_the_margin_only(tmp_path):
    settings = TaskSettings(epoch_batches=4, hysteresis=0.0)
    grew = []
    for margin in (0.0, 1e9):
        allocator = ForecastAllocator(thaw_margin=margin)
        options = {"allocator": allocator, "levels": ("frozen", "full")}
        balancer = AttentionBalancer("20%", tasks=settings, **options)
        torch.manual_seed(1)
        fit(tmp_path / str(margin), balancer, model=trained_before(TwoHeads()), max_epochs=24)
        trained = [set(d.plan.trained) for d in balancer.history if d.plan.task == "short"]
        grew.append(any(not later <= now for now, later in pairwise(trained)))
    assert grew == [True, False]


def test_full_budget_is_the_run_without_a_balancer(tmp_path):
    alone, _ = fit(tmp_path / "a", TaskScheduler(Proportional()))
    balanced, _ = fit(tmp_path / "b", AttentionBalancer("100%", tasks=TaskSettings()))
    assert balanced.served == alone.served
    assert same(weights(balanced), weights(alone))


def test_the_stream_tells_shares_plans_and_affinity(tmp_path):
    balancer = AttentionBalancer("50%", tasks=TaskSettings())
    model, _ = fit(tmp_path, balancer, data=loaders(length=6))
    events = read_events(tmp_path / "attnbal.jsonl")
    assert {e.plan.task for e in events if isinstance(e, PlanDecided)} == {"short", "long"}
    shares = [e for e in events if isinstance(e, SharesDecided)]
    assert all(sum(e.batches.values()) == 20 for e in shares)
    assert all(abs(sum(e.shares.values()) - 1) < 1e-9 for e in shares)
    served = [e for e in events if isinstance(e, TasksServed)][-1]
    assert sum(served.batches.values()) <= len(model.served)
    assert [e.tasks for e in events if isinstance(e, AffinityMeasured)][:1] == [("short", "long")]
    assert "task long" in balancer.explain()
    assert sum(balancer.shares.values()) == pytest.approx(1)


class Stop(Callback):
    """Breaks off after so many batches."""

    def __init__(self, at: int) -> None:
        self.at = at

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.global_step == self.at:
            raise RuntimeError("pulled the plug")


@without_saver
@pytest.mark.parametrize("at", [3, 13, pytest.param(27, marks=pytest.mark.slow)])
@pytest.mark.parametrize("levels", [("frozen", "full"), ("cached", "frozen", "full")])
def test_resumed_equals_uninterrupted(tmp_path, at, levels):
    def balancer():
        return AttentionBalancer("50%", tasks=TaskSettings(), levels=levels)

    whole = balancer()
    reference, _ = fit(tmp_path / "whole", whole)
    saver = ModelCheckpoint(tmp_path / "part", every_n_train_steps=1, save_top_k=-1)
    with pytest.raises(RuntimeError, match="pulled the plug"):
        fit(tmp_path / "part", balancer(), saver, Stop(at + 1), enable_checkpointing=True)
    path = next((tmp_path / "part").glob(f"*step={at}.ckpt"))
    resumed = balancer()
    model, _ = fit(tmp_path / "part", resumed, ckpt_path=str(path))
    assert model.served == reference.served[at:]
    assert model.seen == reference.seen[at:]
    assert resumed.spent.amount == pytest.approx(whole.spent.amount, rel=1e-12)
    if "cached" not in levels:
        assert [d.plan for d in resumed.history] == [d.plan for d in whole.history]
        assert same(weights(model), weights(reference))
        return
    # rows of the cache that are computed again come in other batches, which round differently
    assert [d.plan.levels for d in resumed.history] == [d.plan.levels for d in whole.history]
    for name, weight in weights(reference).items():
        found = weights(model)[name]
        if "in_proj_bias" in name:  # keys' part: its gradient is zero, and Adam scales rounding
            found, weight = (torch.cat([b[:WIDTH], b[2 * WIDTH :]]) for b in (found, weight))
        torch.testing.assert_close(found, weight, rtol=0, atol=1e-6)


def test_accumulated_gradients_of_another_task_are_kept(tmp_path):
    class Cut(Callback):
        grads: list[bool]

        def __init__(self):
            self.grads = []

        def on_before_optimizer_step(self, trainer, pl_module, optimizer):
            heads = pl_module.heads
            self.grads.append(all(h.weight.grad is not None for h in heads.values()))

    cut = Cut()
    data = loaders(10, 10, length=6)
    balancer = AttentionBalancer("50%", tasks=TaskSettings(reach=1.0))
    fit(tmp_path, balancer, cut, data=data, accumulate_grad_batches=2)
    assert all(cut.grads)


def test_scheduler_serves_by_its_rule(tmp_path):
    scheduler = TaskScheduler(Uniform())
    model, _ = fit(tmp_path, scheduler, max_epochs=2)
    assert Counter(model.served) == {"short": 20, "long": 20}
    assert {task: len(losses) for task, losses in scheduler.losses.items()} == {
        "short": 2,
        "long": 2,
    }


@pytest.mark.parametrize("epoch_batches", [None, 40])
def test_a_rare_task_is_looked_at_and_decided_on_early(tmp_path, epoch_batches):
    data = loaders(short=200, long=1, length=6)
    balancer = AttentionBalancer("25%", tasks=TaskSettings(epoch_batches=epoch_batches))
    model, _ = fit(tmp_path, balancer, data=data, max_epochs=2)
    assert balancer.history[0].step == 4
    assert "long" in model.served[:4]
    assert balancer.spent <= balancer.limit


@pytest.mark.parametrize("task", ["short", "long"])
def test_a_task_without_a_floor_may_be_stopped(tmp_path, task):
    tasks = TaskSettings(floors={"short": 0.0, "long": 0.0}, reach=100.0, weights={task: 1e-9})
    balancer = AttentionBalancer("40%", tasks=tasks)
    model, _ = fit(tmp_path, balancer, max_epochs=6)
    assert balancer.history[0].step < 20
    assert task not in model.served[20:60]


class Reloads(TwoHeads):
    """Gives new loaders whenever it is asked."""

    def train_dataloader(self):
        return loaders(length=6)


class Alternate(Callback):
    """Compares what was served with the shares that were in force when the epoch began."""

    def __init__(self, balancer):
        self.balancer, self.wanted, self.pairs = balancer, {}, []

    def on_train_epoch_start(self, trainer, pl_module):
        self.wanted = {task: round(20 * s) for task, s in self.balancer.shares.items()}
        pl_module.served.clear()

    def on_train_epoch_end(self, trainer, pl_module):
        if len(pl_module.served) == 20:
            self.pairs.append((self.wanted, dict(Counter(pl_module.served))))


def test_reloaded_data_are_served_in_the_shares_decided_last(tmp_path, monkeypatch):
    turns = cycle([0.8, 0.2])

    def solve(planner, run):
        share = next(turns)
        return replace(solved(planner, run), shares={"short": share, "long": 1 - share})

    solved = TaskPlans.solve
    monkeypatch.setattr(TaskPlans, "solve", solve)
    balancer = AttentionBalancer("90%", tasks=TaskSettings(), levels=("frozen", "full"))
    watch = Alternate(balancer)
    model = trained_before(Reloads())
    trainer = make_trainer(tmp_path, balancer, watch, reload_dataloaders_every_n_epochs=1)
    trainer.fit(model)
    assert len(watch.pairs) >= 3
    assert all(wanted == served for wanted, served in watch.pairs)
    assert {wanted["short"] for wanted, _ in watch.pairs} >= {4, 16}


def test_a_task_that_was_stopped_by_its_rule_comes_back(tmp_path):
    class Flat(TwoHeads):
        """One task learns, the other does not."""

        def training_step(self, batch, batch_idx):
            loss = super().training_step(batch, batch_idx)
            return 0 * loss + (1.0 if "short" in batch else 0.3**self.current_epoch)

    rule = Stopping(rule=Uniform(), patience=2, rest=2, floor=0.0, tolerance=0.5)
    scheduler = TaskScheduler(rule, epoch_batches=4)
    model, _ = fit(tmp_path, scheduler, model=Flat(), data=loaders(length=6), max_epochs=9)
    served = [model.served[k : k + 4].count("short") for k in range(0, 36, 4)]
    assert served == [2, 2, 2, 0, 0, 2, 0, 0, 2]
    assert [math.isnan(loss) for loss in scheduler.losses["short"]] == [n == 0 for n in served]


class WriteShares(Callback):
    """Leaves what this rank planned in a file."""

    def on_train_end(self, trainer, pl_module):
        (scheduler,) = (c for c in trainer.callbacks if isinstance(c, TaskScheduler))
        found = json.dumps([scheduler.shares, scheduler.losses])
        (Path(trainer.default_root_dir) / f"{trainer.global_rank}.json").write_text(found)


@pytest.mark.ddp
@pytest.mark.slow
def test_ranks_agree_on_what_their_losses_and_seconds_say(tmp_path):
    fit(
        tmp_path,
        TaskScheduler(BanditShares()),
        WriteShares(),
        strategy="ddp_spawn_find_unused_parameters_true",
        devices=2,
        data=loaders(40, 16, length=6),
    )
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    assert first == second


@pytest.mark.parametrize(
    ("settings", "data", "error", "words"),
    [
        (
            TaskSettings(),
            {"short": loaders()["short"], "long": None},
            MisconfigurationException,
            "NoneType for 'long'",
        ),
        (
            TaskSettings(),
            TaskLoader(loaders(), mode="all"),
            MisconfigurationException,
            "mode 'one' here, but got 'all'",
        ),
        (
            TaskSettings(metrics={"short": ("val/accuracy", "max")}),
            None,
            MisconfigurationException,
            "a validation that logs",
        ),
        (TaskSettings(weights={"lon": 2.0}), None, ValueError, "tasks of the data .short, long"),
        (
            TaskSettings(floors={"short": 0.6, "long": 0.6}),
            None,
            ValueError,
            r"`floors` to sum to at most 1",
        ),
        (
            TaskSettings(),
            loaders()["short"],
            MisconfigurationException,
            "a dict of one DataLoader per task",
        ),
    ],
    ids=["no loader", "all", "no validation", "unknown task", "floors above 1", "no dict"],
)
def test_bad_tasks_are_refused_before_training(tmp_path, settings, data, error, words):
    model = trained_before(TwoHeads())
    before = weights(model)
    with pytest.raises(error, match=words):
        fit(tmp_path, AttentionBalancer("50%", tasks=settings), model=model, data=data)
    assert same(weights(model), before)


@without_saver
def test_a_checkpoint_of_other_tasks_is_refused(tmp_path):
    saver = ModelCheckpoint(tmp_path, every_n_train_steps=5)
    fit(tmp_path, AttentionBalancer("50%", tasks=TaskSettings()), saver, enable_checkpointing=True)
    path = next(tmp_path.glob("*.ckpt"))
    data = loaders()
    data["extra"] = data["short"]
    model = trained_before(TwoHeads())
    with pytest.raises(ValueError, match="extra"):
        fit(
            tmp_path,
            AttentionBalancer("50%", tasks=TaskSettings()),
            model=model,
            data=data,
            ckpt_path=str(path),
        )


def test_tasks_cannot_be_replayed(tmp_path):
    fit(tmp_path, AttentionBalancer("50%", tasks=TaskSettings()))
    with pytest.raises(ValueError, match="one of `tasks` and `replay`"):
        AttentionBalancer("50%", tasks=TaskSettings(), replay=tmp_path)
