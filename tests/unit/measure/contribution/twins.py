"""A model with everything that a run on the side could disturb, and a full record of a training."""

from __future__ import annotations

import random
from collections import deque

import numpy as np
import torch
from torch import nn
from torchmetrics import MeanMetric

from lightning_attnbal.core import Unit
from tests.unit.measure.contribution.models import unit

CLASSES = 3


class Touchy(nn.Module):
    """Dropout, BatchNorm, weights that a forward pass rescales, metrics, counters, noise."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(20, 6, max_norm=0.5)
        self.low = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(0.3))
        self.high = nn.Sequential(nn.Linear(8, 6), nn.BatchNorm1d(6), nn.Dropout(0.3))
        self.head = nn.Linear(6, CLASSES)
        self.tied = nn.Linear(6, 8, bias=False)
        self.tied.weight = self.low[0].weight
        self.seen = MeanMetric()
        self.history: list[torch.Tensor] = []
        self.recent: deque[float] = deque(maxlen=2)
        self.totals = {"sum": torch.zeros(()), "nested": [torch.zeros(())]}
        self.num_calls = 0
        self.register_buffer("ema", torch.zeros(6))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.embed(tokens).mean(1)
        x = self.high(self.low(x) + self.tied(x))
        x = x * (1 + 0.1 * random.random()) + 0.1 * float(np.random.rand())
        with torch.no_grad():
            self.ema.lerp_(x.mean(0), 0.1)
            self.totals["sum"] += x.sum()
            self.totals["nested"][0] += 1
        self.seen.update(x.detach())
        self.history.append(x.detach().sum())
        self.recent.append(self.num_calls)
        self.num_calls += 1
        # all of the above has a say in what comes next
        return self.head(x) + 0.01 * (self.ema.sum() + self.seen.compute() + self.num_calls)

    def loss(self, tokens: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(self(tokens), labels)


def touchy_units() -> list[Unit]:
    return [
        unit("embed", "embed.weight"),
        unit("low", "low.0.weight", "tied.weight", "low.0.bias", "low.1.weight", "low.1.bias"),
        unit("high", "high.0.weight", "high.0.bias"),
    ]


def record(model: nn.Module, optimizer: torch.optim.Optimizer | None = None) -> list[object]:
    """Everything that training depends on, as copies that `==` compares exactly."""
    named = dict(model.named_parameters(remove_duplicate=False))
    grads = {n: None if p.grad is None else bits(p.grad) for n, p in named.items()}
    states = [bits(v) for _, v in sorted((optimizer.state_dict() if optimizer else {}).items())]
    plain = [
        {k: bits(v) for k, v in vars(m).items() if not k.startswith("_")} for m in model.modules()
    ]
    metrics = [
        (m._update_count, bits(m.metric_state))
        for m in model.modules()
        if isinstance(m, MeanMetric)
    ]
    return [
        bits(dict(model.state_dict())),
        grads,
        [p.requires_grad for p in named.values()],
        [m.training for m in model.modules()],
        [len(m._forward_hooks) for m in model.modules()],
        plain,
        metrics,
        states,
        random.getstate(),
        bits(np.random.get_state()),
        bits(torch.get_rng_state()),
    ]


def bits(value: object) -> object:
    """Tensors and arrays as bytes, containers as copies."""
    if isinstance(value, torch.Tensor):
        return value.detach().contiguous().numpy().tobytes()
    if isinstance(value, np.ndarray):
        return value.tobytes()
    if isinstance(value, dict):
        return [(str(k), bits(v)) for k, v in value.items()]
    if isinstance(value, list | tuple | deque):
        return [bits(v) for v in value]
    return value if isinstance(value, int | float | str | bool | None) else None
