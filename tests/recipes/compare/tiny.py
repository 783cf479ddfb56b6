"""A tiny BERT classifier on random tokens, trained by each method within a budget."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import BertConfig, BertModel

from recipes.benchmarks.compare.counted import CountedBudget
from recipes.benchmarks.compare.methods import BAdam, Full, Method, ScheduledThaw
from recipes.text import TextClassifier

NUM_BLOCKS, BATCH, CLASSES = 4, 4, 3
LIMIT, LR = 4e7, 1e-2  # some 20 steps of full training
PACKAGES = {BAdam: "badam", ScheduledThaw: "finetuning_scheduler"}
LENGTHS = (8, 8, 12, 8)  # tokens of consecutive batches


def encoder_folder(folder: Path, dropout: float = 0.1) -> Path:
    """A saved BERT of width 16 with random weights."""
    config = BertConfig(
        vocab_size=40,
        hidden_size=16,
        num_hidden_layers=NUM_BLOCKS,
        num_attention_heads=2,
        intermediate_size=32,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
    )
    torch.manual_seed(1)
    BertModel(config).save_pretrained(folder)
    return folder


def batches(num_batches: int = 8, lengths: tuple[int, ...] = LENGTHS) -> list[dict[str, Tensor]]:
    """Random tokens and classes, always the same."""
    generator = torch.Generator().manual_seed(0)
    made = []
    for number in range(num_batches):
        size = (BATCH, lengths[number % len(lengths)])
        ids = torch.randint(0, 40, size, generator=generator)
        labels = torch.randint(0, CLASSES, (BATCH,), generator=generator)
        made.append({"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels})
    return made


def fit(
    folder: Path,
    method: Method | None = None,
    budget: CountedBudget | None = None,
    *,
    module: pl.LightningModule | None = None,
    data: list[Any] | None = None,
    callbacks: tuple[pl.Callback, ...] = (),
    **options: Any,
) -> pl.LightningModule:
    """Train a fresh classifier; without a budget, as plain Lightning does."""
    pl.seed_everything(0, verbose=False)
    module = module or TextClassifier(encoder_folder(folder / "encoder"), CLASSES, lr=LR)
    method = method or Full()
    method.prepare(module)
    own = method.callbacks(budget) if budget else []
    settings = {"max_epochs": -1, "limit_val_batches": 0, **options}
    trainer = pl.Trainer(
        callbacks=[*callbacks, *own],
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        **settings,
    )
    loader = DataLoader(data or batches(), batch_size=None)
    validates = type(module).validation_step is not pl.LightningModule.validation_step
    trainer.fit(module, loader, loader if validates else None)
    return module


class Watch(pl.Callback):
    """What each step trained, at which rates, and which parameters it moved."""

    def __init__(self) -> None:
        self.trainable: list[frozenset[str]] = []
        self.moved: list[frozenset[str]] = []
        self.rates: list[list[float]] = []
        self.epochs: list[int] = []
        self._before: dict[str, Tensor] = {}

    def on_before_zero_grad(self, trainer: Any, module: Any, optimizer: Any) -> None:
        self._before = {n: p.detach().clone() for n, p in module.named_parameters()}
        names = (name for name, p in module.named_parameters() if p.requires_grad)
        self.trainable.append(frozenset(names))

    def on_train_batch_end(self, trainer: Any, module: Any, *_: Any) -> None:
        now = dict(module.named_parameters())
        moved = (name for name, old in self._before.items() if not torch.equal(old, now[name]))
        self.moved.append(frozenset(moved))
        self.rates.append([float(g["lr"]) for g in trainer.optimizers[0].param_groups])
        self.epochs.append(trainer.current_epoch)


def run(
    folder: Path,
    method: Method,
    module: pl.LightningModule | None = None,
    limit: float = LIMIT,
    **options: Any,
) -> tuple[Watch, CountedBudget, pl.LightningModule]:
    """A watched run within `limit` FLOPs; the test is skipped where a package is missing."""
    if type(method) in PACKAGES:
        pytest.importorskip(PACKAGES[type(method)])
    watch, budget = Watch(), CountedBudget(limit)
    module = fit(folder, method, budget, module=module, callbacks=(watch,), **options)
    return watch, budget, module


def copied(module: torch.nn.Module) -> dict[str, Tensor]:
    """Every parameter as it is now."""
    return {name: p.detach().clone() for name, p in module.named_parameters()}


def block(name: str) -> int | None:
    """Which block a parameter is in."""
    parts = name.split(".layer.")
    return int(parts[1].split(".")[0]) if len(parts) > 1 else None


def blocks(names: frozenset[str]) -> list[int]:
    """The blocks some parameters are in."""
    return sorted({number for number in map(block, names) if number is not None})
