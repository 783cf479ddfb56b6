"""One drawing of each figure (Altair), for the report, the loggers and notebooks alike."""

from lightning_attnbal.tracking.charts._draw import draw
from lightning_attnbal.tracking.charts._render import to_png, to_svg

__all__ = ["draw", "to_png", "to_svg"]
