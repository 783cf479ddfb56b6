"""Models whose gradients are known in closed form, and helpers to compare means with them."""

from __future__ import annotations

import math
import statistics

import torch
from torch import nn

from lightning_attnbal.core import Unit, UnitKind

DIM, BATCH, NOISE = 10, 4, 1.0


def unit(name: str, *parameters: str) -> Unit:
    return Unit(name, 0, UnitKind.BLOCK, (name,), parameters, 1)


def two_layers() -> tuple[nn.Sequential, list[Unit]]:
    model = nn.Sequential(nn.Linear(3, 4, bias=False), nn.Linear(4, 1, bias=False))
    return model, [unit(n, f"{n}.weight") for n in "01"]


class NoisyLinear:
    """y = x · w* + noise, x standard normal, loss ½ (x · w − y)², at w = w* + offset.

    The expected loss has the gradient `offset`; the gradient g of a batch has
    E‖g‖² = ‖offset‖² (1 + (d + 1) / B) + d σ² / B.
    """

    def __init__(self, offset: float) -> None:
        self.model = nn.Linear(DIM, 1, bias=False)
        self.units = [unit("all", "weight")]
        self.optimum = torch.randn(DIM)
        self.offset = torch.full((DIM,), offset / math.sqrt(DIM))
        self.squared_slope = offset**2
        self.squared_norm = offset**2 * (1 + (DIM + 1) / BATCH) + DIM * NOISE**2 / BATCH

    def reset(self) -> None:
        self.model.zero_grad()
        with torch.no_grad():
            self.model.weight.copy_(self.optimum + self.offset)

    def loss(self) -> torch.Tensor:
        """On a fresh batch."""
        x = torch.randn(BATCH, DIM)
        y = x @ self.optimum + NOISE * torch.randn(BATCH)
        return (self.model(x).squeeze(1) - y).square().mean() / 2

    def gradient(self) -> list[torch.Tensor]:
        return list(torch.autograd.grad(self.loss(), list(self.model.parameters())))


def distance(values: list[float], truth: float) -> float:
    """How many standard errors the mean of `values` lies above `truth`."""
    error = statistics.stdev(values) / math.sqrt(len(values))
    return (statistics.mean(values) - truth) / error
