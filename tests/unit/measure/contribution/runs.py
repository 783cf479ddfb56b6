"""A small training that meters look on."""

from __future__ import annotations

import torch

from tests.registry import METERS
from tests.unit.measure.contribution.models import two_layers


class Run:
    """A model in training whose meter is fed; the same seed gives the same run."""

    def __init__(self, kind: type) -> None:
        torch.manual_seed(1)
        self.model, self.units = two_layers()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.01)
        self.probe = torch.randn(6, 3)
        self.batches = list(torch.randn(20, 5, 3))
        self.kind = kind

    def meter(self):
        return METERS[self.kind](self.model, self.units)

    def feed(self, meter, batches, scale=1.0):
        """Train on `batches`, a NaN loss for scale NaN, and let `meter` look on."""
        for batch in batches:
            self.optimizer.zero_grad()
            (scale * self.model(batch).square().mean()).backward()
            if hasattr(meter, "after_step"):
                meter.before_step()
                self.optimizer.step()
                meter.after_step([self.optimizer])
                continue
            self.optimizer.step()
            output = self.probe
            for unit, layer in zip(self.units, self.model, strict=True):
                output = layer(output)
                meter.add(unit.name, scale * output)
