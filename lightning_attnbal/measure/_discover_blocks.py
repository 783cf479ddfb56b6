"""Which modules of a model are its blocks, judged by structure: what repeats.

Three kinds of evidence, strongest first; the next is asked only where the ones before find nothing:

1. a list (ModuleList, Sequential, ModuleDict) holds two layers of one class with equal shapes;
2. a list holds a layer at all, or a module holds two layers of one class as attributes;
3. nothing repeats: every matrix product, with the norm that follows it, is a block.

A *layer* is a module with at least two matrices (parameters of two or more dimensions). Modules
called like heads that hold less than half of all numbers are not searched: the heads of several
tasks repeat too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from torch import nn

from lightning_attnbal.measure._discover_parts import (
    LISTS,
    children_with_parameters,
    is_whole,
    num_matrices,
    walk,
)
from lightning_attnbal.measure._names import ancestors, sounds_like_head


def find_blocks(model: nn.Module) -> tuple[tuple[str, ...], ...]:
    """Qualified module names of each block; disjoint, none inside another.

    Returns:
        One group of names per block. Groups have one name, except where nothing repeats: norms and
        other small modules then join the matrix product before them.

    Example:
        >>> convolutions = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3)
        >>> find_blocks(nn.Sequential(*convolutions, nn.Linear(4, 2)))
        (('0', '1'), ('2',))
        >>> layer = nn.TransformerEncoderLayer(8, 2, 8)
        >>> encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        >>> find_blocks(nn.Sequential(nn.Linear(4, 8), encoder))
        (('1.layers.0',), ('1.layers.1',))
    """
    heads = _heads(model)
    evidence = set(_alike(model, "", heads)) or set(_listed(model, "", heads))
    found = tuple((name,) for name in _outermost(model, "", heads, evidence))
    return found or _matrix_products(model, heads)


def _heads(model: nn.Module) -> frozenset[str]:
    """Names of modules that are called like heads and hold less than half of all numbers."""
    half = sum(parameter.numel() for parameter in model.parameters()) / 2
    named = ((name, module) for name, module in model.named_modules() if sounds_like_head(name))
    return frozenset(name for name, m in named if sum(p.numel() for p in m.parameters()) < half)


def _is_layer(module: nn.Module) -> bool:
    return not is_whole(module) and num_matrices(module) >= 2


def _searched(module: nn.Module, name: str, heads: frozenset[str]) -> list[tuple[str, nn.Module]]:
    children = [] if is_whole(module) else children_with_parameters(module, name)
    return [(key, child) for key, child in children if key not in heads]


def _signature(module: nn.Module) -> tuple[object, ...]:
    return type(module), *(tuple(parameter.shape) for parameter in module.parameters())


def _alike(module: nn.Module, name: str, heads: frozenset[str]) -> Iterator[nn.Module]:
    """Layers that a list holds twice, equal in class and shapes; the inner of nested lists."""
    children = _searched(module, name, heads)
    layers = [child for _, child in children if isinstance(module, LISTS) and _is_layer(child)]
    times = Counter(map(_signature, layers))
    repeated = [child for child in layers if times[_signature(child)] >= 2]
    classes = {type(child) for child in repeated} - set(LISTS)
    for child_name, child in children:
        inside = [] if type(child) in classes else list(_alike(child, child_name, heads))
        yield from inside
        if not inside and (type(child) in classes or child in repeated):
            yield child


def _listed(module: nn.Module, name: str, heads: frozenset[str]) -> Iterator[nn.Module]:
    """Layers in lists, and layers that share a class with another attribute of the same module."""
    children = _searched(module, name, heads)
    in_list = isinstance(module, LISTS)
    layers = [c for _, c in children if _is_layer(c) and (in_list or not _is_stack(c))]
    times = Counter(map(type, layers))
    for child_name, child in children:
        if type(child) not in LISTS and times[type(child)] >= (1 if in_list else 2):
            yield child
        else:
            yield from _listed(child, child_name, heads)


def _is_stack(module: nn.Module) -> bool:
    """Whether a module has layers in a ModuleList, or children that are all layers of one class."""
    lists = [m for m in module.modules() if isinstance(m, nn.ModuleList)]
    children = [child for _, child in children_with_parameters(module, "")]
    is_pure = len(set(map(type, children)) - set(LISTS)) == 1 and all(map(_is_layer, children))
    return is_pure or any(_is_layer(child) for m in lists for child in m)


def _outermost(
    module: nn.Module, name: str, heads: frozenset[str], evidence: set[nn.Module]
) -> Iterator[str]:
    """Names of the outermost modules in `evidence` or, lists aside, of a class found there."""
    classes = {type(block) for block in evidence} - set(LISTS)
    for child_name, child in _searched(module, name, heads):
        if type(child) in classes or child in evidence:
            yield child_name
        else:
            yield from _outermost(child, child_name, heads, evidence)


def _is_product(name: str, module: nn.Module) -> bool:
    is_small = num_matrices(module) <= 1 or not children_with_parameters(module, name)
    return is_small or is_whole(module)


def _matrix_products(model: nn.Module, heads: frozenset[str]) -> tuple[tuple[str, ...], ...]:
    """One group per matrix product; the last is left for the head if nothing is called so."""
    groups: list[list[str]] = []
    parts = [part for part in walk(model, _is_product) if not part.is_embedding]
    body = [part for part in parts if heads.isdisjoint({part.name, *ancestors(part.name)})]
    for part in body:
        if groups and part.module is not None and num_matrices(part.module) == 0:
            groups[-1].append(part.name)
        else:
            groups.append([part.name])
    if len(groups) > 1 and len(body) == len(parts):
        groups.pop()
    return tuple(map(tuple, groups))
