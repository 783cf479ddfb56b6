"""The Trainer's loggers as views of the event stream."""

from __future__ import annotations

import lightning.pytorch as pl
from lightning_utilities.core.rank_zero import rank_zero_info

from lightning_attnbal.tracking.views import Publisher, views_for


def make_publisher(trainer: pl.Trainer) -> Publisher:
    """Shows a run in every logger of the Trainer, from rank zero only; says once what is left out.

    What the loggers cannot show is in the recorded file all the same.
    """
    publisher = Publisher(views_for(trainer.loggers) if trainer.is_global_zero else ())
    if publisher.gaps:
        rank_zero_info(f"[attnbal] {publisher.gaps} The whole run is in its attnbal.jsonl.")
    return publisher
