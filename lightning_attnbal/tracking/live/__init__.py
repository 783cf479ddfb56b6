"""A report that follows its runs, on this machine only."""

from lightning_attnbal.tracking.live._server import LiveReport

__all__ = ["LiveReport"]
