"""From facts and pictures to HTML."""

from __future__ import annotations

from base64 import b64encode
from hashlib import sha256
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

_PACKAGE = "lightning_attnbal.tracking.report"


def fill(template: str, **values: Any) -> str:
    """A template with values; text is escaped, wherever it comes from.

    Args:
        template: name of a file in `templates`.
        values: what it shows.
    """
    environment = Environment(
        loader=PackageLoader(_PACKAGE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style, script = _asset("style.css"), _asset("script.js")
    return environment.get_template(template).render(
        style=style, script=script, policy=_policy(style, script), **values
    )


def _asset(name: str) -> Markup:
    """A file of this package: it goes into the page as it is."""
    return Markup(files(_PACKAGE).joinpath("templates", name).read_text(encoding="utf-8"))


def _policy(style: str, script: str) -> str:
    """Nothing is loaded or sent; only this style and this script count."""
    return (
        f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    return f"sha256-{b64encode(sha256(text.encode()).digest()).decode()}"
