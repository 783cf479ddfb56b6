"""A small user's project: an ordinary LightningModule and loaders that can be resumed mid-epoch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch import LightningModule, Trainer, seed_everything
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_attnbal.allocate import Allocator, Choice, Limits, Progress
from lightning_attnbal.callbacks import AttentionBalancer
from lightning_attnbal.core import Plan, Problem

WIDTH, TOKENS, CLASSES, BATCH = 16, 6, 3, 4


class Classifier(LightningModule):
    """Embedding, four transformer blocks, head."""

    def __init__(
        self, scheduler: str | None = None, dropout: float = 0.0, lr: float = 1e-3, depth: int = 4
    ) -> None:
        super().__init__()
        self.scheduler, self.lr = scheduler, lr
        self.embedding = nn.Embedding(20, WIDTH)
        layer = nn.TransformerEncoderLayer(WIDTH, 2, 32, dropout, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)
        self.head = nn.Linear(WIDTH, CLASSES)
        self.rates: list[float] = []

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.encoder(self.embedding(tokens)).mean(1))

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        self.rates.append(self.trainer.optimizers[0].param_groups[0]["lr"])
        loss = nn.functional.cross_entropy(self(batch[0]), batch[1])
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self.log("val_loss", nn.functional.cross_entropy(self(batch[0]), batch[1]))

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.parameters(), lr=self.lr)
        if self.scheduler is None:
            return optimizer
        total = int(self.trainer.estimated_stepping_batches)
        kind = torch.optim.lr_scheduler
        scheduler = {
            "step": lambda: kind.LinearLR(optimizer, 1.0, 0.0, total),
            "epoch": lambda: kind.StepLR(optimizer, 1, 0.5),
            "onecycle": lambda: kind.OneCycleLR(optimizer, self.lr, total),
        }[self.scheduler]()
        interval = "epoch" if self.scheduler == "epoch" else "step"
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": interval},
        }


def dataset(num_samples: int = 40, seed: int = 0) -> TensorDataset:
    """Tokens whose class is the most frequent third of the vocabulary."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(0, 20, (num_samples, TOKENS), generator=generator)
    return TensorDataset(tokens, (tokens.sum(1) % CLASSES).long())


def trained_before(model: Classifier) -> Classifier:
    """The model with weights that no framework initialises, as if somebody had trained it."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))
    return model


class Spy(Allocator):
    """Lets another allocator decide, and keeps what it was asked."""

    def __init__(self, allocator: Allocator) -> None:
        self.allocator = allocator
        self.problems: list[Problem] = []
        self.progress: list[Progress] = []

    def allocate(
        self, problem: Problem, limits: Limits, current: Plan | None, progress: Progress
    ) -> Choice:
        self.problems.append(problem)
        self.progress.append(progress)
        return self.allocator.allocate(problem, limits, current, progress)


class ResumableLoader:
    """Shuffles per epoch; continues mid-epoch with exactly the batches that were left."""

    def __init__(self, num_batches: int, seed: int = 0, epoch: int = 0) -> None:
        self.data = dataset(num_batches * BATCH)
        self.num_batches, self.seed = num_batches, seed
        self.epoch, self.position = epoch, 0

    def __len__(self) -> int:
        return self.num_batches

    def __iter__(self) -> Iterator[list[Tensor]]:
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        order = torch.randperm(len(self.data), generator=generator).view(self.num_batches, BATCH)
        while self.position < self.num_batches:
            rows = order[self.position]
            self.position += 1
            if self.position == self.num_batches:
                self.epoch, self.position = self.epoch + 1, 0
                yield [t[rows] for t in self.data.tensors]
                return
            yield [t[rows] for t in self.data.tensors]

    def state_dict(self) -> dict[str, int]:
        return {"epoch": self.epoch, "position": self.position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.epoch, self.position = state["epoch"], state["position"]


def fit(
    tmp_path: Path,
    balancer: AttentionBalancer | None,
    *,
    model: Classifier | None = None,
    num_batches: int = 10,
    loader: Any = None,
    ckpt_path: str | None = None,
    **trainer: Any,
) -> tuple[Classifier, Trainer]:
    """Train the tiny classifier as a user would."""
    seed_everything(0, verbose=False)
    model = model or Classifier()
    loader = loader or DataLoader(
        dataset(num_batches * BATCH),
        BATCH,
        shuffle=True,
        generator=torch.Generator().manual_seed(0),
    )
    options: dict[str, Any] = {
        "max_epochs": 3,
        "limit_val_batches": 0,
        "log_every_n_steps": 5,
        "accelerator": "cpu",
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "default_root_dir": tmp_path,
        **trainer,
    }
    callbacks = [*options.pop("callbacks", []), *([balancer] if balancer else [])]
    runner = pl.Trainer(callbacks=callbacks, **options)
    runner.fit(model, loader, DataLoader(dataset(8, seed=1), BATCH), ckpt_path=ckpt_path)
    return model, runner


def weights(model: nn.Module) -> dict[str, Tensor]:
    """A copy of every parameter and buffer."""
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    """Whether two state dicts agree to the last bit."""
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
