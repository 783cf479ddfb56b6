"""What a backward pass costs that a module does in its own way, such as one for each task."""

from __future__ import annotations

from contextlib import ExitStack

import lightning.pytorch as pl
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from lightning_attnbal.measure import flop_counter


class OwnBackward:
    """Counts real backward passes of a module that overrides `backward`; inert for all others.

    Args:
        module: the user's.
    """

    def __init__(self, module: nn.Module) -> None:
        plain = pl.LightningModule.backward
        self.is_own = isinstance(module, pl.LightningModule) and type(module).backward is not plain
        self._counting = ExitStack()
        self._counter: FlopCounterMode | None = None

    def start(self) -> None:
        """A backward pass follows that is to be counted."""
        if self.is_own:
            self._counter = self._counting.enter_context(flop_counter())

    def stop(self) -> float | None:
        """It is over: its FLOPs; None if nothing was counted."""
        counter, self._counter = self._counter, None
        self._counting.close()
        return None if counter is None else float(counter.get_total_flops())
