"""Packages that only some methods need."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType


def require(package: str, distribution: str | None = None) -> ModuleType:
    """Import a package that is needed only now.

    Args:
        package: name to import.
        distribution: name to install, where it differs.

    Raises:
        ModuleNotFoundError: names what to install.

    Example:
        >>> require("no_such_package", "no-such-package")
        Traceback (most recent call last):
        ModuleNotFoundError: Expected the package no-such-package, but it is not installed. ...
    """
    try:
        return import_module(package)
    except ModuleNotFoundError as error:
        if error.name != package:
            raise  # it is there, and lacks something itself
        name = distribution or package
        msg = (
            f"Expected the package {name}, but it is not installed. "
            f"Install it with `pip install {name}`."
        )
        raise ModuleNotFoundError(msg) from error
