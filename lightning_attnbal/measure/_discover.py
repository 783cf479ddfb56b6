"""Partition of a model's parameters into units."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import takewhile

from torch import nn
from torch.nn.parameter import is_lazy

from lightning_attnbal.core import Unit, UnitKind, UnsupportedModelError
from lightning_attnbal.measure._discover_blocks import find_blocks
from lightning_attnbal.measure._discover_drafts import Draft, draft_units
from lightning_attnbal.measure._discover_groups import Group, UnitSpec, resolve_groups
from lightning_attnbal.measure._discover_parts import LISTS, Part, walk
from lightning_attnbal.measure._names import ancestors, parent_of


def discover_units(model: nn.Module, units: UnitSpec = None) -> tuple[Unit, ...]:
    """Partition all parameters of a model into units, in forward order as far as structure tells.

    Blocks are found by structure and become a unit each: layers of one class in a list; failing
    that, as attributes of one module; failing that, single matrix products with their norm. What
    comes before the first block is one unit, `embeddings` or `stem`; what comes after the last is
    `head`; what lies between (downsampling, a decoder's embeddings, an encoder's final norm) are
    units of kind `other` or `embedding`. Tied parameters belong to the lowest unit that has them;
    a module with nothing but such parameters (a tied `lm_head`) is listed in the `modules` of that
    unit. `order_units` puts the units in the order seen in a real forward pass.

    Args:
        model: any module; a LightningModule too.
        units: None to discover; otherwise which modules are units: a list of qualified names or
            patterns whose `*` stays within one dotted component (`["encoder.layer.*"]`: one unit
            per match), a mapping of unit name to such a list (one unit per name), or a function
            from the model to a list of such lists (one unit per list). Whatever these leave is
            grouped like what surrounds discovered blocks.

    Returns:
        Units that hold every parameter exactly once. Names are unique; modules are disjoint and
        none is inside another. A unit of bare parameters only has no modules.

    Raises:
        TypeError: `model` is no module, or `units` has another form.
        UnsupportedModelError: the model has no parameters, or uninitialised ones.
        ValueError: a pattern matches nothing, or two units overlap.

    Example:
        >>> layer = nn.TransformerEncoderLayer(8, 2, 8)
        >>> encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        >>> model = nn.Sequential(nn.Embedding(9, 8), encoder, nn.Linear(8, 2))
        >>> for unit in discover_units(model):
        ...     print(unit.index, unit.name, unit.kind.value, unit.modules, unit.num_parameters)
        0 embeddings embedding ('0',) 72
        1 1.layers.0 block ('1.layers.0',) 464
        2 1.layers.1 block ('1.layers.1',) 464
        3 head head ('2',) 18
        >>> [unit.name for unit in discover_units(model, {"body": ["1"]})]
        ['embeddings', 'body', 'head']
    """
    _check_model(model)
    found = map(Group, find_blocks(model)) if units is None else resolve_groups(model, units)
    groups = tuple(found)
    inside = {name for group in groups for module in group.modules for name in ancestors(module)}
    parts = walk(model, lambda name, _: name not in inside)
    if units is not None:
        _check_owned(groups, parts)
    return _units(model, draft_units(parts, groups))


def order_units(units: Sequence[Unit], calls: Sequence[str]) -> tuple[Unit, ...]:
    """Put units in the order in which their modules were first called.

    Args:
        units: what `discover_units` returned.
        calls: qualified names of modules in the order of their calls; a call of something inside a
            unit's module counts as well.

    Returns:
        The same units with new indices. Embeddings that own bare parameters only go first; units
        that were never called go last; ties keep their order.

    Example:
        >>> units = discover_units(nn.Sequential(*(nn.Linear(2, 2) for _ in range(3))))
        >>> [unit.name for unit in order_units(units, calls=["1", "0", "1"])]
        ['1', '0', 'head']
    """
    first: dict[str, int] = {}
    for position, call in enumerate(calls):
        for name in ancestors(f"{call}."):
            first.setdefault(name, position)

    def key(unit: Unit) -> int:
        if not unit.modules and unit.kind is UnitKind.EMBEDDING:
            return -1
        return min((first[name] for name in unit.modules if name in first), default=len(calls))

    ordered = sorted(units, key=key)
    return tuple(replace(unit, index=index) for index, unit in enumerate(ordered))


def _check_model(model: object) -> None:
    if not isinstance(model, nn.Module):
        msg = f"Expected `model` to be a torch.nn.Module, but got {type(model).__name__}."
        raise TypeError(msg)
    parameters = dict(model.named_parameters())
    if not parameters:
        msg = f"Expected `model` to have parameters, but {type(model).__name__} has none."
        raise UnsupportedModelError(msg)
    lazy = [name for name, parameter in parameters.items() if is_lazy(parameter)]
    if lazy:
        msg = (
            f"Expected all parameters of `model` to be initialised, but {lazy[0]!r} is not; "
            "run one forward pass before its units are discovered."
        )
        raise UnsupportedModelError(msg)


def _check_owned(groups: Sequence[Group], parts: Sequence[Part]) -> None:
    """Refuse a unit that the user asked for and that tied parameters leave empty."""
    owned = {name for part in parts for name in (part.name, *ancestors(part.name))}
    for group in groups:
        if owned.isdisjoint(group.modules):
            msg = (
                f"Expected each unit in `units` to have parameters of its own, but all those of "
                f"{group.modules[0]!r} are tied to lower units."
            )
            raise ValueError(msg)


def _units(model: nn.Module, drafts: Sequence[Draft]) -> tuple[Unit, ...]:
    names = _names(drafts, _boilerplate(model, drafts))
    qualified = {id(parameter): name for name, parameter in model.named_parameters()}
    units = []
    for index, (name, draft) in enumerate(zip(names, drafts, strict=True)):
        owned = [parameter for part in draft.parts for parameter in part.parameters]
        units.append(
            Unit(
                name=name,
                index=index,
                kind=draft.kind,
                modules=tuple(module for part in draft.parts for module in part.modules),
                parameters=tuple(qualified[id(parameter)] for parameter in owned),
                num_parameters=sum(parameter.numel() for parameter in owned),
            )
        )
    return tuple(units)


def _names(drafts: Sequence[Draft], prefix: str) -> list[str]:
    """Roles, and names without the boilerplate; full names where these would be ambiguous."""
    short = [d.given or d.role or d.name.removeprefix(f"{prefix}.") for d in drafts]
    times = Counter(short)
    return [s if times[s] == 1 else d.name for s, d in zip(short, drafts, strict=True)]


def _boilerplate(model: nn.Module, drafts: Sequence[Draft]) -> str:
    """Name of the innermost module, lists aside, that holds everything up to the last block."""
    last = max((i for i, d in enumerate(drafts) if d.kind is UnitKind.BLOCK), default=0)
    paths = [part.parent.split(".") for draft in drafts[: last + 1] for part in draft.parts]
    shared = takewhile(lambda components: len(set(components)) == 1, zip(*paths, strict=False))
    prefix = ".".join(components[0] for components in shared)
    while prefix and isinstance(model.get_submodule(prefix), LISTS):
        prefix = parent_of(prefix)
    return prefix
