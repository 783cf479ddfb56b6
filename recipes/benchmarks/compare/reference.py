"""What the full run costs: every budget of the comparison is a share of it."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities import CombinedLoader
from lightning.pytorch.utilities.signature_utils import is_param_in_hook_signature

from lightning_attnbal.measure import flop_counter
from recipes.benchmarks.compare._step_costs import batch_shapes
from recipes.benchmarks.compare.tasks import Task

_SEED = 0


def full_flops(task: Task, is_dev: bool, folder: Path) -> float:
    """FLOPs of `task.epochs` epochs of training everything that may train; kept in `folder`."""
    split = "dev" if is_dev else "test"
    path = folder / f"reference-{split}.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    if known.get("task") != repr(task):
        known = {"task": repr(task), "flops": count_full(task, is_dev)}
        write_whole(path, known)
    return float(known["flops"])


def write_whole(path: Path, content: Mapping[str, Any]) -> None:
    """Write the whole file or none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".{os.getpid()}.part")
    part.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    part.replace(path)


def count_full(task: Task, is_dev: bool) -> float:
    """The same, counted by torch's counter.

    One batch of each shape is counted, forward and backward, and shapes are weighed by how often
    they occur; the order of the batches is that of seed 0, whatever the run's seed.
    """
    data = task.data(_SEED, is_dev=is_dev)
    with torch.random.fork_rng():
        module = task.module(data, task.base_lr)
    batches: dict[Hashable, Any] = {}
    counts: Counter[Hashable] = Counter()
    for batch, *_ in iter(CombinedLoader(data.train_dataloader(), "max_size_cycle")):
        shape = batch_shapes(batch)
        batches.setdefault(shape, batch)
        counts[shape] += 1
    epoch = sum(count_step(module, batches[shape]) * n for shape, n in counts.items())
    return float(task.epochs * epoch)


def count_step(module: pl.LightningModule, batch: Any) -> float:
    """FLOPs of forward and backward on one batch."""
    module.log = _silent  # type: ignore[method-assign,assignment]  # there is no Trainer
    with flop_counter() as counter, torch.random.fork_rng():
        takes_index = is_param_in_hook_signature(module.training_step, "batch_idx", min_args=2)
        loss = module.training_step(batch, *((0,) if takes_index else ()))
        assert isinstance(loss, torch.Tensor)
        loss.backward()
    for parameter in module.parameters():
        parameter.grad = None
    return float(counter.get_total_flops())


def _silent(*_: Any, **__: Any) -> None:
    """Log nothing."""
