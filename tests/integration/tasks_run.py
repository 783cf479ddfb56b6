"""A small user's project with several tasks: one trunk, a head each, loaders of different size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch import LightningModule, Trainer, seed_everything
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

WIDTH, CLASSES, BATCH = 16, 3, 4


class TwoHeads(LightningModule):
    """Embedding, three transformer blocks, a head per task."""

    def __init__(self, tasks: tuple[str, ...] = ("short", "long"), dropout: float = 0.0) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, WIDTH)
        layer = nn.TransformerEncoderLayer(WIDTH, 2, 32, dropout, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 3, enable_nested_tensor=False)
        self.heads = nn.ModuleDict({task: nn.Linear(WIDTH, CLASSES) for task in tasks})
        self.served: list[str] = []
        self.seen: list[int] = []

    def training_step(self, batch: dict[str, list[Tensor]], batch_idx: int) -> Tensor:
        ((task, (tokens, labels)),) = batch.items()
        self.served.append(task)
        self.seen.append(int(tokens.sum()))
        logits = self.heads[task](self.encoder(self.embedding(tokens)).mean(1))
        loss = nn.functional.cross_entropy(logits, labels)
        self.log(f"{task}/loss", loss)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=1e-3)


def rows(num: int, length: int, seed: int = 0) -> TensorDataset:
    """Tokens whose class is their sum's."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(0, 20, (num, length), generator=generator)
    return TensorDataset(tokens, (tokens.sum(1) % CLASSES).long())


def loaders(short: int = 12, long: int = 8, length: int = 60) -> dict[str, DataLoader[Any]]:
    """So many batches of a task with short texts and of one with long texts."""
    data = {"short": rows(short * BATCH, 6), "long": rows(long * BATCH, length, seed=1)}
    return {task: DataLoader(texts, BATCH, shuffle=True) for task, texts in data.items()}


def trained_before(model: nn.Module) -> Any:
    """The model with weights that no framework initialises, as if somebody had trained it."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return model


def fit(
    tmp_path: Path,
    *callbacks: pl.Callback,
    model: TwoHeads | None = None,
    data: Any = None,
    ckpt_path: str | None = None,
    **trainer: Any,
) -> tuple[TwoHeads, Trainer]:
    """Train as a user would."""
    seed_everything(0, verbose=False)
    model = model or trained_before(TwoHeads())
    runner = make_trainer(tmp_path, *callbacks, **trainer)
    runner.fit(model, data or loaders(), ckpt_path=ckpt_path)
    return model, runner


def make_trainer(tmp_path: Path, *callbacks: pl.Callback, **trainer: Any) -> Trainer:
    """A small and quiet one."""
    options: dict[str, Any] = {
        "max_epochs": 4,
        "accelerator": "cpu",
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "default_root_dir": tmp_path,
        **trainer,
    }
    return pl.Trainer(callbacks=list(callbacks), **options)
