"""What a Trainer would be refused or limited for, before any run."""

from __future__ import annotations

from collections.abc import Callable

import lightning.pytorch as pl
from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch import nn
from typing_extensions import override

from lightning_attnbal.callbacks._balancer import AttentionBalancer
from lightning_attnbal.callbacks._refuse import refuse_endless_share, refuse_unsupported
from lightning_attnbal.core import Budget
from lightning_attnbal.planning import Finding, Verdict


def diagnose_trainer(trainer: pl.Trainer, model: nn.Module | None = None) -> tuple[Finding, ...]:
    """What the balancer would refuse this Trainer for; the same check that a fit begins with.

    Connects the model to the Trainer, as a fit would, and trains nothing.

    Args:
        trainer: as it would be used, with or without the balancer among its callbacks.
        model: what it would train; a module that is no LightningModule is put into one.

    Example:
        >>> trainer = pl.Trainer(min_epochs=2, max_epochs=3, logger=False, accelerator="cpu",
        ...                      enable_checkpointing=False, enable_model_summary=False,
        ...                      enable_progress_bar=False)
        >>> print(diagnose_trainer(trainer)[0])
        refused: Trainer: Expected `min_epochs` and `min_steps` to be unset, but got 2 and None: ...
    """
    module = model if isinstance(model, pl.LightningModule) else _Holder(model)
    trainer.strategy.connect(module)
    refused = _reason(lambda: refuse_unsupported(trainer, module, AttentionBalancer))
    if refused is not None:
        return (Finding(Verdict.REFUSED, "Trainer", refused),)
    text = f"{type(trainer.strategy).__name__}, precision {trainer.precision}: nothing is refused."
    findings = [Finding(Verdict.FINE, "Trainer", text)]
    is_endless = trainer.max_epochs == -1 and trainer.max_steps == -1
    share = Budget.parse("50%")
    limited = _reason(lambda: refuse_endless_share(share, None if is_endless else 1))
    if limited is not None:
        findings.append(Finding(Verdict.LIMITED, "budget", limited))
    return tuple(findings)


def _reason(check: Callable[[], object]) -> str | None:
    try:
        check()
    except MisconfigurationException as error:
        return str(error)
    return None


class _Holder(pl.LightningModule):
    """A LightningModule around what is none."""

    def __init__(self, model: nn.Module | None) -> None:
        super().__init__()
        self.model = nn.Identity() if model is None else model

    @override
    def training_step(self, *args: object) -> None:
        """Never called."""

    @override
    def configure_optimizers(self) -> None:
        """Never called."""
