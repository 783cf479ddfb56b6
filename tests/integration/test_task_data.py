"""A module with tasks, trained by a real Trainer on loaders that take turns."""

import json
import multiprocessing
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities import CombinedLoader
from torch import nn
from torch.utils.data import DataLoader

from lightning_attnbal.multitask import TaskLoader
from lightning_attnbal.trainer import serve_tasks

SHARES = {"big": 5, "small": 3}
STEPS = 8  # of an epoch


def make_loaders(num=16):
    return {
        "big": DataLoader(range(num), 2, shuffle=True),
        "small": DataLoader(range(3), 1, shuffle=True),
    }


class Tasks(LightningModule):
    """Notes what it was given; trains one weight per task."""

    def __init__(self, loaders=None):
        super().__init__()
        self.heads = nn.ParameterDict({"big": nn.Parameter(torch.ones(()))})
        self.heads["small"] = nn.Parameter(torch.ones(()))
        self.loaders, self.seen = loaders, []

    def train_dataloader(self):
        return self.loaders

    def training_step(self, batch: dict, batch_idx: int):
        self.seen.append({task: rows.tolist() for task, rows in batch.items()})
        losses = [self.heads[task] * rows.float().mean() for task, rows in batch.items()]
        return torch.stack(losses).sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)


class Data(LightningDataModule):
    def __init__(self, loaders):
        super().__init__()
        self.loaders = loaders

    def train_dataloader(self):
        return self.loaders


class Serve(Callback):
    """What a callback that balances tasks does."""

    def __init__(self, **settings):
        self.settings, self.plans = settings, []

    def setup(self, trainer, pl_module, stage):
        self.before = dict(vars(trainer.fit_loop._data_source))
        self.data = serve_tasks(trainer, **self.settings)

    def on_train_epoch_end(self, trainer, pl_module):
        if loader := self.data.loader:
            self.plans.append((loader.planned, loader.served))

    def on_exception(self, trainer, pl_module, exception):
        self.data.undo()
        self.left = dict(vars(trainer.fit_loop._data_source))

    def teardown(self, trainer, pl_module, stage):
        self.data.undo()
        self.data.undo()
        self.left = dict(vars(trainer.fit_loop._data_source))


class Kill(Callback):
    """Fails before a batch, counted through the run."""

    def __init__(self, at):
        self.at = at

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.fit_loop.total_batch_idx == self.at:
            msg = f"before batch {self.at}"
            raise InterruptedError(msg)


class SetShares(Callback):
    """Changes the plan when the second epoch starts."""

    def on_train_epoch_start(self, trainer, pl_module):
        if trainer.current_epoch == 1:
            trainer.train_dataloader.set_shares({"big": 0, "small": 1})


def fit(tmp_path, module, *callbacks, data=None, ckpt_path=None, seed=0, **options):
    pl.seed_everything(seed, verbose=False)
    options = {"max_epochs": 2, "enable_checkpointing": False, **options}
    trainer = Trainer(
        accelerator="cpu",
        logger=False,
        callbacks=list(callbacks),
        default_root_dir=tmp_path,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )
    given = {"datamodule": data} if isinstance(data, Data) else {"train_dataloaders": data}
    trainer.fit(module, **given, ckpt_path=ckpt_path)
    return trainer


@pytest.mark.parametrize(
    "source",
    [
        lambda loaders: (Tasks(), Data(loaders)),
        lambda loaders: (Tasks(loaders), None),
        lambda loaders: (Tasks(), loaders),
        lambda loaders: (Tasks(), CombinedLoader(loaders, "min_size")),
    ],
    ids=["datamodule", "module", "fit", "combined"],
)
def test_serves_the_planned_shares_from(source, tmp_path):
    module, data = source(make_loaders())
    serve = Serve(shares=SHARES, num_batches=STEPS)
    fit(tmp_path, module, serve, data=data)
    assert serve.plans == [(SHARES, SHARES)] * 2
    assert "".join(task[0] for step in module.seen for task in step) == "bsbbsbsb" * 2
    big = [rows for step in module.seen for rows in step.get("big", [])]
    assert sorted(big[:16]) == list(range(16))  # one pass, through the end of the first epoch
    assert serve.left == serve.before


def test_new_shares_count_from_the_epoch_that_starts(tmp_path):
    module = Tasks(make_loaders())
    serve = Serve(shares=SHARES, num_batches=4)
    fit(tmp_path, module, serve, SetShares())
    assert [plan for plan, _ in serve.plans] == [{"big": 3, "small": 1}, {"big": 0, "small": 4}]


def test_all_tasks_each_step(tmp_path):
    module = Tasks(make_loaders())
    fit(tmp_path, module, Serve(mode="all"))
    assert [list(step) for step in module.seen] == [["big", "small"]] * 16


@pytest.mark.parametrize(("run", "setting"), [(1, {}), (0, {"seed": 1})], ids=["run", "setting"])
def test_seed_decides_the_order(run, setting, tmp_path):
    modules = [Tasks(make_loaders()) for _ in range(3)]
    fit(tmp_path, modules[0], Serve())
    fit(tmp_path, modules[1], Serve())
    fit(tmp_path, modules[2], Serve(**setting), seed=run)
    assert modules[0].seen == modules[1].seen != modules[2].seen


def test_users_own_task_loader_passes_through(tmp_path):
    own = TaskLoader(make_loaders(), shares=SHARES, num_batches=4)
    serve = Serve(shares={"big": 1, "small": 0})
    fit(tmp_path, Tasks(), serve, data=own)
    assert serve.data.loader is own
    assert own.served == {"big": 3, "small": 1}


def test_single_task_dict(tmp_path):
    module = Tasks({"big": DataLoader(range(6), 2)})
    serve = Serve()
    fit(tmp_path, module, serve)
    assert module.seen == [{"big": [0, 1]}, {"big": [2, 3]}, {"big": [4, 5]}] * 2


class One(Tasks):
    """Without tasks."""

    def training_step(self, batch, batch_idx):
        return super().training_step({"big": batch}, batch_idx)


def test_data_without_tasks_are_left_alone(tmp_path):
    plain, served = One(), One()
    fit(tmp_path, plain, data=make_loaders()["big"])
    serve = Serve()
    fit(tmp_path, served, serve, data=make_loaders()["big"])
    assert serve.data.loader is None
    assert served.seen == plain.seen


@pytest.mark.parametrize(
    ("limit", "plan"),
    [(5, {"big": 3, "small": 2}), (0.5, {"big": 3, "small": 1})],
    ids=["batches", "fraction"],
)
def test_limit_train_batches(limit, plan, tmp_path):
    module = Tasks(make_loaders())
    serve = Serve(shares=SHARES, num_batches=STEPS)
    fit(tmp_path, module, serve, limit_train_batches=limit)
    assert [served for _, served in serve.plans] == [plan] * 2
    assert len(module.seen) == 2 * sum(plan.values())


def test_reloaded_data_keep_shares_and_shuffle_anew(tmp_path):
    class Reloading(Tasks):
        def train_dataloader(self):
            return make_loaders()

    module = Reloading()
    serve = Serve(num_batches=4)
    fit(tmp_path, module, serve, SetShares(), max_epochs=3, reload_dataloaders_every_n_epochs=1)
    assert [plan["small"] for plan, _ in serve.plans] == [1, 4, 4]
    assert module.seen[4:7] != module.seen[8:11]


STEPWISE = {"every_n_train_steps": 1}
EPOCHWISE = {"every_n_epochs": 1, "save_on_train_epoch_end": True}


def run_tasks(tmp_path, saves, *callbacks, workers=0, ckpt_path=None, **options):
    """Train with a checkpoint at every step or epoch, until killed or done."""
    loaders = {
        task: DataLoader(loader.dataset, loader.batch_size, shuffle=True, num_workers=workers)
        for task, loader in make_loaders().items()
    }
    module = Tasks(loaders)
    settings = {"max_epochs": 3, "accumulate_grad_batches": 2, "enable_checkpointing": True}
    saving = ModelCheckpoint(tmp_path, "{step}", save_top_k=-1, **saves)
    callbacks = (Serve(shares=SHARES, num_batches=STEPS), saving, *callbacks)
    fit(tmp_path, module, *callbacks, ckpt_path=ckpt_path, **{**settings, **options})
    return module


@pytest.mark.parametrize(
    ("killed", "step", "saves", "options"),
    [
        pytest.param(7, 3, STEPWISE, {}, id="mid-epoch"),
        pytest.param(13, 6, STEPWISE, {"workers": 1}, id="mid-second-epoch-worker"),
        pytest.param(9, 4, STEPWISE, {}, id="last-batch"),
        pytest.param(11, 4, EPOCHWISE, {}, id="end-of-epoch"),
        pytest.param(7, 3, STEPWISE, {"max_epochs": -1, "max_steps": 12}, id="max-steps"),
        pytest.param(8, 3, STEPWISE, {"limit_train_batches": 6}, id="limited-last-batch"),
        pytest.param(9, 4, STEPWISE, {"limit_train_batches": 0.75}, id="cut-short-mid-epoch"),
        pytest.param(8, 3, STEPWISE, {"limit_train_batches": 0.75}, id="cut-short-last-batch"),
        pytest.param(8, 3, EPOCHWISE, {"limit_train_batches": 0.75}, id="cut-short-end"),
    ],
)
def test_killed_run_goes_on_with_the_same_batches(killed, step, saves, options, tmp_path):
    whole = run_tasks(tmp_path / "whole", saves, **options)
    with pytest.raises(InterruptedError, match=f"before batch {killed}"):
        run_tasks(tmp_path, saves, Kill(killed), **options)
    assert multiprocessing.active_children() == []
    resumed = run_tasks(tmp_path, saves, ckpt_path=tmp_path / f"step={step}.ckpt", **options)
    assert resumed.seen == whole.seen[2 * step :]
    torch.testing.assert_close(resumed.state_dict(), whole.state_dict(), rtol=0, atol=0)


def test_other_tasks_than_in_the_checkpoint_are_refused(tmp_path):
    run_tasks(tmp_path, STEPWISE, max_epochs=1)
    fewer = Tasks({"big": make_loaders()["big"]})
    saving = ModelCheckpoint(tmp_path, **STEPWISE)
    with pytest.raises(ValueError, match=r"\[\] are missing and \['small'\] are unknown"):
        fit(
            tmp_path,
            fewer,
            Serve(num_batches=STEPS),
            saving,
            enable_checkpointing=True,
            ckpt_path=tmp_path / "step=3.ckpt",
        )


def test_exception_leaves_no_trace(tmp_path):
    serve = Serve(shares=SHARES)
    with pytest.raises(InterruptedError, match="before batch 3"):
        fit(tmp_path, Tasks(make_loaders()), serve, Kill(3))
    assert serve.left == serve.before


def test_overfitting_is_refused():
    trainer = Trainer(accelerator="cpu", barebones=True, overfit_batches=2)
    with pytest.raises(MisconfigurationException, match="Expected `overfit_batches` to be 0"):
        serve_tasks(trainer)


class Write(Callback):
    """Leaves what this rank saw in a file."""

    def on_train_end(self, trainer, pl_module):
        folder = Path(trainer.default_root_dir)
        (folder / f"{trainer.global_rank}.json").write_text(json.dumps(pl_module.seen))


@pytest.mark.ddp
@pytest.mark.slow
@pytest.mark.parametrize("divided", [True, False], ids=["divided", "by-the-user"])
def test_ranks_of_a_trainer_serve_the_same_tasks(divided, tmp_path):
    fit(
        tmp_path,
        Tasks(make_loaders()),
        Serve(shares={"big": 4, "small": 2}, num_batches=6),
        Write(),
        strategy="ddp_spawn_find_unused_parameters_true",
        devices=2,
        max_epochs=1,
        use_distributed_sampler=divided,
    )
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    assert [list(step) for step in first] == [list(step) for step in second]
    rows = [row for step in (*first, *second) for row in step.get("big", [])]
    assert sorted(rows) == list(range(16)) if divided else first == second


def _serve_rank(rank, folder):
    """One of two gloo ranks; rank 0 writes what both served."""
    store = f"file://{folder}/store"
    torch.distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=2)
    loader = TaskLoader(
        {"big": DataLoader(range(20), 2, shuffle=True), "small": DataLoader(range(6), 1)},
        shares=SHARES,
        num_batches=STEPS,
        rank=torch.distributed.get_rank(),
        world_size=torch.distributed.get_world_size(),
    )
    steps = [(task, rows.tolist()) for step in loader for task, rows in step.items()]
    served = [None, None]
    torch.distributed.all_gather_object(served, steps)
    if rank == 0:
        (folder / "served.json").write_text(json.dumps(served))
    torch.distributed.destroy_process_group()


@pytest.mark.ddp
def test_two_ranks_serve_the_same_tasks_and_disjoint_rows(tmp_path):
    context = multiprocessing.get_context("fork")
    ranks = [context.Process(target=_serve_rank, args=(rank, tmp_path)) for rank in range(2)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join()
    assert [process.exitcode for process in ranks] == [0, 0]
    first, second = json.loads((tmp_path / "served.json").read_text())
    assert [task for task, _ in first] == [task for task, _ in second]
    for task, size in {"big": 20, "small": 6}.items():
        rows = [
            row
            for served in (first, second)
            for name, rows in served
            for row in rows
            if name == task
        ]
        assert sorted(rows) == list(range(size))
