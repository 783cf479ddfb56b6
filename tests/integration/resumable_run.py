"""Trains the tiny classifier with a checkpoint after every step; may kill itself at a given step.

Usage: python -m tests.integration.resumable_run FOLDER [KILL_AT_BATCH]
Resumes if FOLDER has a checkpoint.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import torch
from lightning.pytorch import Callback, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint

from lightning_attnbal.callbacks import AttentionBalancer
from tests.integration.tiny import Classifier, ResumableLoader, fit, trained_before

NUM_BATCHES = 12


class Kill(Callback):
    """Ends the process without warning at a batch."""

    def __init__(self, at: int) -> None:
        self.at = at

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.fit_loop.total_batch_idx == self.at:
            os.kill(os.getpid(), signal.SIGKILL)


def main(folder: Path, kill_at: int | None) -> None:
    """Train, resume if there is a checkpoint, write what came out."""
    torch.set_num_threads(1)
    seed_everything(0, verbose=False)
    balancer = AttentionBalancer(budget="45%", warmup=0.1)
    checkpoint = ModelCheckpoint(
        folder, "last", every_n_train_steps=1, enable_version_counter=False
    )
    callbacks: list[Callback] = [checkpoint]
    if kill_at is not None:
        callbacks.append(Kill(kill_at))
    last = folder / "last.ckpt"
    model, trainer = fit(
        folder,
        balancer,
        model=trained_before(Classifier()),
        loader=ResumableLoader(NUM_BATCHES),
        ckpt_path=str(last) if last.exists() else None,
        callbacks=callbacks,
        enable_checkpointing=True,
        accumulate_grad_batches=2,
        max_epochs=6,
    )
    torch.save(model.state_dict(), folder / "weights.pt")
    result = {
        "spent": balancer.spent.amount,
        "limit": balancer.limit.amount,
        "steps": trainer.global_step,
        "plans": [decision.to_dict() for decision in balancer.history],
    }
    (folder / "result.json").write_text(json.dumps(result, sort_keys=True))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else None)
