"""Resumed from any of its checkpoints, a run ends as if it had never stopped."""

from __future__ import annotations

from functools import cache
from itertools import product
from pathlib import Path

import pytest
import torch
from lightning.pytorch.callbacks import Checkpoint

from lightning_attnbal.allocate import ForecastAllocator
from lightning_attnbal.callbacks import AttentionBalancer
from tests.integration.tiny import (
    Classifier,
    ResumableLoader,
    Spy,
    fit,
    same,
    trained_before,
    weights,
)

NUM_BATCHES = 12


class Saver(Checkpoint):
    """A checkpoint wherever people make one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if (batch_idx + 1) % trainer.accumulate_grad_batches == 0:
            trainer.save_checkpoint(self.folder / f"step {trainer.global_step}.ckpt")

    def on_validation_end(self, trainer, pl_module):
        if not trainer.sanity_checking:
            trainer.save_checkpoint(self.folder / f"validated {trainer.current_epoch}.ckpt")

    def on_train_epoch_end(self, trainer, pl_module):
        trainer.save_checkpoint(self.folder / f"epoch {trainer.current_epoch}.ckpt")


class Run:
    """A run, perhaps resumed, and what came of it."""

    def __init__(
        self, folder: Path, accumulate: int, ckpt_path: Path | None = None, epoch: int = 0
    ) -> None:
        self.spy = Spy(ForecastAllocator(hysteresis=0.0))
        self.balancer = AttentionBalancer("50%", allocator=self.spy, probes=0.2)
        self.model, self.trainer = fit(
            folder,
            self.balancer,
            model=trained_before(Classifier()),
            loader=ResumableLoader(NUM_BATCHES, epoch=epoch),
            ckpt_path=None if ckpt_path is None else str(ckpt_path),
            callbacks=[Saver(folder)] if ckpt_path is None else [],
            enable_checkpointing=ckpt_path is None,
            accumulate_grad_batches=accumulate,
            max_epochs=5,
            limit_val_batches=1,
        )


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """By batches per step, the folder of a run's checkpoints and the run."""

    @cache
    def make(accumulate: int) -> tuple[Path, Run]:
        torch.set_num_threads(1)
        folder = tmp_path_factory.mktemp("uninterrupted")
        run = Run(folder, accumulate)
        plans = [decision.plan for decision in run.balancer.history]
        assert len({plan.trained for plan in plans}) > 1  # else there is little to resume
        return folder, run

    return make


def check_equal(resumed: Run, whole: Run) -> None:
    asked = len(whole.spy.progress) - len(resumed.spy.progress)
    assert resumed.spy.progress == whole.spy.progress[asked:]
    assert resumed.spy.problems == whole.spy.problems[asked:]
    assert resumed.balancer.history == whole.balancer.history
    assert resumed.balancer.spent == whole.balancer.spent
    assert resumed.trainer.global_step == whole.trainer.global_step
    assert same(weights(resumed.model), weights(whole.model))


PLACES = ["step 1", "step 6", "step 7", "step 11", "step 12", "validated 1", "epoch 1"]
OFTEN = {(1, "step 11"), (2, "step 6"), (2, "validated 1"), (2, "epoch 1")}


@pytest.mark.parametrize(
    ("accumulate", "place"),
    [
        pytest.param(*case, marks=() if case in OFTEN else pytest.mark.slow)
        for case in product((1, 2), PLACES)
    ],
)
def test_resumed_after(tmp_path, uninterrupted, accumulate, place):
    folder, whole = uninterrupted(accumulate)
    # Lightning hands a loader its state back only within an epoch
    epoch = 2 if place == "epoch 1" else 0
    resumed = Run(tmp_path, accumulate, folder / f"{place}.ckpt", epoch)
    check_equal(resumed, whole)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_only_a_checkpoint_between_the_probed_batches_holds_data(uninterrupted, accumulate):
    folder, _ = uninterrupted(accumulate)
    steps = NUM_BATCHES // accumulate
    for place, holds in ((f"step {steps - 1}", steps == NUM_BATCHES), (f"step {steps}", False)):
        state = torch.load(folder / f"{place}.ckpt", weights_only=True)["callbacks"]
        assert bool(state["AttentionBalancer"]["probes"]["batches"]) == holds
