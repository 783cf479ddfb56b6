"""The HTML report of one run or several: one file, no network."""

from lightning_attnbal.tracking.report._report import render_report, write_report
from lightning_attnbal.tracking.report._view import ReportView

__all__ = ["ReportView", "render_report", "write_report"]
