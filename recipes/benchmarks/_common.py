"""What all benchmarks share: the machine they ran on, the file they write, a small training job."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

RESULTS = Path(__file__).parent / "results"


def machine() -> dict[str, Any]:
    """Processor, cores, threads in use, versions."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if platform.system() == "Linux" else []
    models = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    versions = {name: metadata.version(name) for name in ("torch", "lightning", "numpy", "scipy")}
    return {
        "cpu": models[0] if models else platform.processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        **versions,
    }


def write_record(path: Path, record: Mapping[str, Any]) -> None:
    """Write the figures with the machine they were taken on."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"benchmark": path.stem, "machine": machine(), **record}
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


class SequenceClassifier(pl.LightningModule):
    """A small encoder: embedding, `depth` pre-norm blocks of width 128, head."""

    def __init__(self, depth: int = 6, width: int = 128) -> None:
        super().__init__()
        self.embedding = nn.Embedding(1000, width)
        layer = nn.TransformerEncoderLayer(width, 4, 4 * width, 0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)
        self.head = nn.Linear(width, 10)

    def training_step(self, batch: list[Tensor]) -> Tensor:
        """Cross entropy of the mean-pooled tokens."""
        hidden = self.encoder(self.embedding(batch[0])).mean(1)
        loss: Tensor = nn.functional.cross_entropy(self.head(hidden), batch[1])
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW at a constant rate."""
        return torch.optim.AdamW(self.parameters(), lr=1e-4)


def loader(num_batches: int, batch_size: int = 8, num_tokens: int = 64) -> DataLoader[Any]:
    """Random tokens and classes, the same at each call."""
    generator = torch.Generator().manual_seed(0)
    size = num_batches * batch_size
    tokens = torch.randint(0, 1000, (size, num_tokens), generator=generator)
    labels = torch.randint(0, 10, (size,), generator=generator)
    return DataLoader(TensorDataset(tokens, labels), batch_size)


def trainer(callbacks: list[pl.Callback], folder: Path, **options: Any) -> pl.Trainer:
    """A quiet CPU Trainer."""
    return pl.Trainer(
        callbacks=callbacks,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        **options,
    )
