"""Whether the libraries that draw are there."""

from __future__ import annotations

from importlib.util import find_spec

_PACKAGES = ("altair", "vl_convert", "jinja2")


def check_report_extra() -> None:
    """Refuse to draw without the libraries.

    Raises:
        ModuleNotFoundError: one of them is not installed.
    """
    missing = [package for package in _PACKAGES if find_spec(package) is None]
    if missing:
        msg = f"Charts and reports need {missing[0]}: pip install 'lightning-attnbal[report]'."
        raise ModuleNotFoundError(msg, name=missing[0])
