"""Pictures from charts, without a browser."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lightning_attnbal.core import check_number
from lightning_attnbal.tracking.charts._extra import check_report_extra

if TYPE_CHECKING:
    from lightning_attnbal.tracking.charts._drawing import Chart


def to_svg(chart: Chart) -> str:
    """A chart as SVG text, transparent behind; every mark says in `aria-label` what it shows.

    Raises:
        ModuleNotFoundError: vl-convert is not installed.

    Example:
        >>> import altair
        >>> to_svg(altair.Chart(altair.InlineData([{"x": 1}])).mark_point().encode(x="x:Q"))[:4]
        '<svg'
    """
    check_report_extra()
    import vl_convert

    svg: str = vl_convert.vegalite_to_svg(chart.to_dict(), allowed_base_urls=[])
    return svg


def to_png(chart: Chart, scale: float = 2.0, background: str = "white") -> bytes:
    """A chart as PNG.

    Args:
        chart: the chart.
        scale: pixels of the picture per pixel of the chart, in (0, inf).
        background: the colour behind it.

    Raises:
        ModuleNotFoundError: vl-convert is not installed.

    Example:
        >>> import altair
        >>> to_png(altair.Chart(altair.InlineData([{"x": 1}])).mark_point().encode(x="x:Q"))[1:4]
        b'PNG'
    """
    check_number("scale", scale, low=0, low_open=True)
    check_report_extra()
    import vl_convert

    spec = chart.to_dict()
    spec["config"] = {**spec.get("config", {}), "background": background}
    png: bytes = vl_convert.vegalite_to_png(spec, scale=scale, allowed_base_urls=[])
    return png
