"""Units as a user asks for them: module names, glob patterns, a mapping of them, or a function."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any, cast

from torch import nn

from lightning_attnbal.core import UnitKind
from lightning_attnbal.measure._names import ancestors, sounds_like_embedding, sounds_like_head

UnitSpec = (
    Sequence[str]
    | Mapping[str, Sequence[str]]
    | Callable[[nn.Module], Sequence[Sequence[str]]]
    | None
)
"""What a user may say about units; see `discover_units`."""


@dataclass(frozen=True, slots=True)
class Group:
    """Modules that make up one unit.

    Args:
        modules: their qualified names.
        name: name of the unit, or "" to derive it from the modules.
        kind: its role.

    Example:
        >>> Group(("encoder.layer.0",)).kind.value
        'block'
    """

    modules: tuple[str, ...]
    name: str = ""
    kind: UnitKind = UnitKind.BLOCK


def resolve_groups(
    model: nn.Module,
    units: Sequence[str]
    | Mapping[str, Sequence[str]]
    | Callable[[nn.Module], Sequence[Sequence[str]]],
) -> tuple[Group, ...]:
    """The groups of modules that `units` stands for.

    A pattern is a qualified module name in which `*`, `?` and `[...]` match within one dotted
    component, as in paths: `encoder.layer.*` means the layers and not what is inside them. Modules
    without parameters are left out.

    Args:
        model: where to look.
        units: patterns, each matched module a unit; or unit name to patterns, all matched modules
            together one unit; or a function from the model to a list of lists of patterns, each
            list one unit.

    Raises:
        TypeError: `units` has another form.
        ValueError: a pattern matches nothing, or two units share a module or lie inside each other.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2))
        >>> [group.modules for group in resolve_groups(model, ["*"])]
        [('0',), ('2',)]
        >>> [(group.name, group.modules) for group in resolve_groups(model, {"all": ["0", "2"]})]
        [('all', ('0', '2'))]
    """
    known = [key for key, m in model.named_modules() if key and any(True for _ in m.parameters())]
    if isinstance(units, Mapping):
        groups = [_group(_matches(names, known), unit) for unit, names in units.items()]
    elif callable(units):
        groups = [_group(_matches(names, known)) for names in _checked(units(model), Sequence)]
    else:
        names = (name for pattern in _checked(units) for name in _matches([pattern], known))
        groups = [_group((name,)) for name in names]
    _check_disjoint(groups)
    return tuple(groups)


def _group(modules: tuple[str, ...], name: str = "") -> Group:
    """A block, unless everything in it is called an embedding or a head."""
    if all(map(sounds_like_embedding, modules)):
        return Group(modules, name, UnitKind.EMBEDDING)
    is_head = all(map(sounds_like_head, modules))
    return Group(modules, name, UnitKind.HEAD if is_head else UnitKind.BLOCK)


def _checked(value: Any, of: type = str) -> Sequence[Any]:
    is_sequence = isinstance(value, Sequence) and not isinstance(value, str)
    if not is_sequence or not value or not all(isinstance(item, of) for item in value):
        msg = (
            "Expected `units` to be a list of module names or patterns, a mapping of unit names to "
            "such lists or a function that returns a list of such lists, none of them empty, "
            f"but got {value!r}."
        )
        raise TypeError(msg)
    return cast("Sequence[Any]", value)


def _matches(patterns: object, known: Sequence[str]) -> tuple[str, ...]:
    """Names that match any of the patterns, each once."""
    matched: dict[str, None] = {}
    for pattern in _checked(patterns):
        found = [name for name in known if _is_match(name, pattern)]
        if not found:
            raise ValueError(_no_match(pattern, known))
        matched |= dict.fromkeys(found)
    return tuple(matched)


def _is_match(name: str, pattern: str) -> bool:
    components, globs = name.split("."), pattern.split(".")
    return len(components) == len(globs) and all(map(fnmatchcase, components, globs))


def _no_match(pattern: str, known: Sequence[str]) -> str:
    depth = pattern.count(".")
    close = get_close_matches(pattern, known, n=3) or [n for n in known if n.count(".") <= depth]
    names = ", ".join(map(repr, close[:8]))
    return (
        f"Expected each pattern in `units` to match a module with parameters, but got {pattern!r}; "
        f"this model has {names}."
    )


def _check_disjoint(groups: Iterable[Group]) -> None:
    names = [name for group in groups for name in group.modules]
    for name, times in Counter(names).items():
        if times > 1:
            msg = f"Expected units not to overlap, but `units` has {name!r} in {times} of them."
            raise ValueError(msg)
        outer = next((other for other in ancestors(name) if other in names), None)
        if outer is not None:
            msg = f"Expected no module inside another, but `units` has {outer!r} and {name!r}."
            raise ValueError(msg)
