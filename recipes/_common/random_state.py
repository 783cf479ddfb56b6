"""Random numbers go on where they were, so that a resumed run is the uninterrupted one."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor


class RandomState(pl.Callback):
    """Saves torch's random states with a checkpoint and restores them: dropout draws as it would.

    Lightning leaves them alone. The states of the CPU and of every GPU in use are kept; a
    checkpoint from another number of GPUs restores those that there are.

    Example:
        >>> sorted(RandomState().state_dict())
        ['cpu', 'cuda']
    """

    def __init__(self) -> None:
        self._restored: dict[str, Any] | None = None

    def state_dict(self) -> dict[str, Any]:
        """The states as they are."""
        return {"cpu": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state_all()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take them from a checkpoint, for when training starts."""
        self._restored = state_dict

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:  # noqa: ARG002
        """Restore them."""
        if self._restored is None:
            return
        torch.set_rng_state(self._restored["cpu"].cpu())
        states: list[Tensor] = self._restored["cuda"]
        for device, state in zip(range(torch.cuda.device_count()), states, strict=False):
            torch.cuda.set_rng_state(state.cpu(), device)
        self._restored = None
