"""What frozen units would be worth now: asked of two batches, at most once an epoch."""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import lightning.pytorch as pl
from lightning.fabric.utilities import move_data_to_device
from lightning.pytorch.utilities.signature_utils import is_param_in_hook_signature
from lightning_utilities.core.rank_zero import rank_zero_warn
from torch import Tensor

from lightning_attnbal.callbacks._run import Run

_NUM_BATCHES = 2


class Probes:
    """Keeps the last batches of an epoch, and probes with them as far as the allowance goes.

    A checkpoint made between those batches holds the first one, if it is plain tensors, so that a
    resumed run probes with what the uninterrupted one does.

    Args:
        share: of the budget that all probes together may cost, in [0, 1).
    """

    def __init__(self, share: float) -> None:
        self._share = share
        self._batches: deque[tuple[Any, int]] = deque(maxlen=_NUM_BATCHES)
        self._is_refused = not share

    def see(self, batch: Any, batch_idx: int, num_batches: float) -> None:
        """A batch starts; the last ones of an epoch are kept as they came."""
        if self._is_refused or batch_idx < num_batches - _NUM_BATCHES:
            return
        try:
            self._batches.append((copy.deepcopy(batch), batch_idx))
        except Exception as error:  # a batch may hold anything
            self._refuse("a batch cannot be copied", error)

    def run(self, trainer: pl.Trainer, pl_module: pl.LightningModule, run: Run) -> None:
        """Measure what is frozen, if the allowance covers it; training goes on untouched."""
        batches, self._batches = list(self._batches), deque(maxlen=_NUM_BATCHES)
        if self._is_refused or len(batches) < _NUM_BATCHES:
            return
        costs = [run.session.probe_cost(batch) for batch, _ in batches]
        if not run.may_probe(costs, self._share):
            return
        batches = [(move_data_to_device(batch, pl_module.device), idx) for batch, idx in batches]
        losses = [partial(batch_loss, trainer, pl_module, *kept) for kept in batches]
        try:
            with muted(pl_module):
                run.probe(losses, costs)
        except Exception as error:  # a second look at a batch is more than a module promises
            self._refuse("`training_step` failed on a batch it had seen before", error)

    def _refuse(self, why: str, error: Exception) -> None:
        self._is_refused = True
        self._batches.clear()
        rank_zero_warn(
            f"Frozen layers are not probed from now on, because {why}: {type(error).__name__}: "
            f"{error}. Training goes on; pass probes=0 to do without."
        )

    def state_dict(self) -> dict[str, Any]:
        """Plain data for a checkpoint."""
        kept = [pair for pair in self._batches if _is_plain(pair[0])]
        return {"batches": kept, "is_refused": self._is_refused}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self._batches.extend((batch, int(idx)) for batch, idx in state["batches"])
        self._is_refused |= bool(state["is_refused"])


def _is_plain(batch: Any) -> bool:
    """Whether a checkpoint that loads only weights can hold the batch."""
    if type(batch) in {list, tuple}:
        return all(map(_is_plain, batch))
    if type(batch) is dict:
        return all(map(_is_plain, [*batch, *batch.values()]))
    return type(batch) in {Tensor, str, int, float, bool, type(None)}


def batch_loss(
    trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
) -> Tensor:
    """The loss of `training_step`, in the Trainer's precision.

    Raises:
        TypeError: it returned none.
    """
    takes_index = is_param_in_hook_signature(pl_module.training_step, "batch_idx", min_args=2)
    extra = (batch_idx,) if takes_index else ()
    with trainer.precision_plugin.train_step_context():
        output = pl_module.training_step(copy.deepcopy(batch), *extra)
    loss = output.get("loss") if isinstance(output, Mapping) else output
    if not isinstance(loss, Tensor):
        msg = f"Expected `training_step` to return a loss, but got {type(output).__name__}."
        raise TypeError(msg)
    return loss


@contextmanager
def muted(pl_module: pl.LightningModule) -> Iterator[None]:
    """Nothing is logged. Our one grip on `LightningModule.log` and `log_dict`."""
    names = ("log", "log_dict")
    kept = {name: pl_module.__dict__[name] for name in names if name in pl_module.__dict__}
    silent: Callable[..., None] = lambda *_, **__: None  # noqa: E731
    for name in names:
        object.__setattr__(pl_module, name, silent)
    try:
        yield
    finally:
        for name in names:
            object.__delattr__(pl_module, name)
            if name in kept:
                object.__setattr__(pl_module, name, kept[name])
