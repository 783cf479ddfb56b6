"""Dataclasses to plain JSON and back, with every value checked against its type hint."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from enum import Enum
from functools import cache
from types import NoneType
from typing import Any, get_args, get_origin, get_type_hints

from lightning_attnbal.core import Level, check_choice, check_integer, check_number


def encode(value: Any) -> Any:
    """Plain data for JSON; NaN and infinities, which JSON lacks, become None."""
    if type(value) in _PLAIN:  # first, for they are by far the most
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Level):
        return str(value)
    if is_dataclass(value):
        kept = (field for field in fields(value) if field.metadata.get("is_saved", True))
        return {field.name: encode(getattr(value, field.name)) for field in kept}
    if isinstance(value, Mapping):
        return {str(key): encode(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [encode(item) for item in value]
    return value.value if isinstance(value, Enum) else value


def decode(hint: Any, value: Any, name: str) -> Any:
    """The value of type `hint` that `encode` wrote; a None where a float belongs is read as NaN.

    Raises:
        TypeError: the value is of another type.
        ValueError: a key, name or number is not allowed.
    """
    if NoneType in get_args(hint):
        (inner,) = (arg for arg in get_args(hint) if arg is not NoneType)
        return None if value is None else decode(inner, value, name)
    origin = get_origin(hint)
    if origin is tuple:
        items, inner = _expect(list, value, name), get_args(hint)[0]
        return tuple(
            v if _is_done(inner, v) else decode(inner, v, f"{name}[{i}]")
            for i, v in enumerate(items)
        )
    if origin is Mapping:
        pairs, inner = _expect(dict, value, name).items(), get_args(hint)[1]
        return {
            key: v if _is_done(inner, v) else decode(inner, v, f"{name}.{key}") for key, v in pairs
        }
    if hint in _SCALARS:
        return _SCALARS[hint](value, name)
    if issubclass(hint, Enum):
        return hint(check_choice(name, value, [member.value for member in hint]))
    return decode_fields(hint, _expect(dict, value, name), name)


def decode_fields(kind: type[Any], data: Mapping[str, Any], name: str) -> Any:
    """A dataclass from its fields; a missing field takes its default.

    Raises:
        TypeError: a field is of another type.
        ValueError: a field is unknown, or missing and without default.
    """
    hints, known = _shape(kind)  # type: ignore[arg-type]  # a class is hashable
    unknown = [key for key in data if key not in known]
    missing = [key for key, field in known.items() if key not in data and _is_required(field)]
    if unknown or missing:
        found = ", ".join(map(repr, data)) or "none"
        msg = f"Expected `{name}` to have the fields {', '.join(known)}, but got {found}."
        raise ValueError(msg)
    return kind(**{key: decode(hints[key], v, f"{name}.{key}") for key, v in data.items()})


def _is_done(hint: Any, value: Any) -> bool:
    """Whether this is the decoded value already, so that a long list is read quickly."""
    return type(value) is hint and (hint is str or (hint is float and math.isfinite(value)))


@cache
def _shape(kind: type[Any]) -> tuple[dict[str, Any], dict[str, Field[Any]]]:
    """Type hints and fields of a dataclass."""
    return get_type_hints(kind), {field.name: field for field in fields(kind)}


def _is_required(field: Field[Any]) -> bool:
    return field.default is MISSING and field.default_factory is MISSING


def _expect(kind: type[Any], value: Any, name: str) -> Any:
    if not isinstance(value, kind):
        found = f"{value!r} of type {type(value).__name__}"
        msg = f"Expected `{name}` to be a {kind.__name__}, but got {found}."
        raise TypeError(msg)
    return value


_parse_level = cache(Level.parse)


def _decode_float(value: Any, name: str) -> float:
    return math.nan if value is None else check_number(name, value)


_PLAIN = frozenset({str, int, bool, NoneType})
_SCALARS: dict[Any, Callable[[Any, str], Any]] = {
    float: _decode_float,
    bool: lambda value, name: _expect(bool, value, name),
    int: lambda value, name: check_integer(name, value, low=-(2**63), high=2**63),
    str: lambda value, name: _expect(str, value, name),
    Level: lambda value, name: _parse_level(_expect(str, value, name)),
}
