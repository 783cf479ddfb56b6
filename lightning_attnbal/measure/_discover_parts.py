"""A model as a flat sequence of parts, in the order in which they are likely to run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from torch import nn
from torch.nn.utils.parametrize import is_parametrized

from lightning_attnbal.measure._names import parent_of, sounds_like_embedding, sounds_like_head

WHOLE = (
    nn.RNNBase,
    nn.MultiheadAttention,
)  # use the weights of their children without calling them
LISTS = (nn.ModuleList, nn.Sequential, nn.ModuleDict)


@dataclass(slots=True)
class Part:
    """A module, or a parameter that a container owns itself.

    Args:
        name: qualified name.
        module: the module, or None for a parameter.
        parameters: the parameters it owns; tied ones are owned by the first part that has them.
        guests: names of later modules of which all parameters are owned here.

    Example:
        >>> part = Part("encoder.norm", nn.LayerNorm(4))
        >>> part.parent, part.is_embedding, part.modules
        ('encoder', False, ('encoder.norm',))
    """

    name: str
    module: nn.Module | None
    parameters: list[nn.Parameter] = field(default_factory=list)
    guests: list[str] = field(default_factory=list)

    @property
    def parent(self) -> str:
        """Qualified name of the container."""
        return parent_of(self.name)

    @property
    def modules(self) -> tuple[str, ...]:
        """Names of the modules whose forward is this part's work."""
        own = () if self.module is None else (self.name,)
        return (*own, *self.guests)

    @property
    def is_embedding(self) -> bool:
        """Whether it usually runs before the blocks beside it; bare parameters (tokens) do."""
        if sounds_like_head(self.name):
            return False
        kinds = (nn.Embedding, nn.EmbeddingBag)
        is_table = self.module is None or isinstance(self.module, kinds)
        return is_table or sounds_like_embedding(self.name)

    @property
    def is_head(self) -> bool:
        """Whether it, or a module around it, is called like a head."""
        return any(map(sounds_like_head, self.name.split(".")))

    @property
    def is_layer(self) -> bool:
        """Whether it does more than one matrix product."""
        return self.module is not None and num_matrices(self.module) >= 2


def is_whole(module: nn.Module) -> bool:
    """Whether a module uses the weights of its children without calling them.

    Example:
        >>> is_whole(nn.MultiheadAttention(4, 2)), is_whole(nn.Linear(4, 2))
        (True, False)
    """
    return isinstance(module, nn.RNNBase | nn.MultiheadAttention) or is_parametrized(module)


def num_matrices(module: nn.Module) -> int:
    """How many parameters of two or more dimensions a module has.

    Example:
        >>> num_matrices(nn.LSTM(4, 4)), num_matrices(nn.LayerNorm(4))
        (2, 0)
    """
    return sum(parameter.ndim >= 2 for parameter in module.parameters())


def children_with_parameters(module: nn.Module, name: str) -> list[tuple[str, nn.Module]]:
    """Qualified name and module of each child that has parameters, in registration order.

    Example:
        >>> mlp = nn.Sequential(nn.ReLU(), nn.Linear(2, 2))
        >>> [name for name, _ in children_with_parameters(mlp, "mlp")]
        ['mlp.1']
    """
    prefix = f"{name}." if name else ""
    children = ((prefix + key, child) for key, child in module.named_children())
    return [(key, child) for key, child in children if any(True for _ in child.parameters())]


def walk(model: nn.Module, is_part: Callable[[str, nn.Module], bool]) -> list[Part]:
    """Split a model into parts, and give each parameter to the first part that has it.

    Args:
        model: what to split.
        is_part: whether a module, given its qualified name, stays whole. Modules without a forward
            of their own (ModuleList, ModuleDict) are split all the same: nobody calls them.

    Returns:
        Parts in registration order, except that inside a module which is no list embeddings go
        first and heads last. Parts whose parameters all belong to earlier ones are not listed;
        they are `guests` there.

    Example:
        >>> model = nn.Module()
        >>> model.head = nn.Linear(4, 9, bias=False)
        >>> model.body, model.embed = nn.Linear(4, 4), nn.Embedding(9, 4)
        >>> [part.modules for part in walk(model, lambda name, module: True)]
        [('embed',), ('body',), ('head',)]
        >>> model.head.weight = model.embed.weight
        >>> [part.modules for part in walk(model, lambda name, module: True)]
        [('embed', 'head'), ('body',)]
    """
    if is_whole(model) or not children_with_parameters(model, ""):
        return [Part("", model, list(model.parameters()))]
    return _without_tied(_split(model, "", is_part, set()))


def _split(
    module: nn.Module, name: str, is_part: Callable[[str, nn.Module], bool], seen: set[nn.Module]
) -> Iterator[Part]:
    for part in _inside(module, name, is_part):
        if part.module is None:
            yield part
        elif part.module not in seen:
            seen.add(part.module)
            if _has_forward(part.module) and is_part(part.name, part.module):
                yield part
            else:
                yield from _split(part.module, part.name, is_part, seen)


def _inside(module: nn.Module, name: str, is_part: Callable[[str, nn.Module], bool]) -> list[Part]:
    """What a module holds directly: embeddings first and heads last, unless it is a list."""
    prefix = f"{name}." if name else ""
    bare = module.named_parameters(recurse=False)
    held = [Part(prefix + key, None, [parameter]) for key, parameter in bare]
    for child_name, child in children_with_parameters(module, name):
        held.append(Part(child_name, child, list(child.parameters())))
    if isinstance(module, LISTS):
        return held

    def rank(part: Part) -> int:
        if part.module is not None and not is_part(part.name, part.module):
            return 1
        return 0 if part.is_embedding else 1 + sounds_like_head(part.name)

    return sorted(held, key=rank)


def _has_forward(module: nn.Module) -> bool:
    return type(module).forward is not nn.Module.forward


def _without_tied(parts: Iterator[Part]) -> list[Part]:
    """Give each parameter to the first part that has it; parts left with none become guests."""
    owners: dict[int, Part] = {}
    kept = []
    for part in parts:
        first = owners.get(id(part.parameters[0]))
        part.parameters = [p for p in part.parameters if id(p) not in owners]
        owners |= {id(p): part for p in part.parameters}
        if part.parameters or first is None:
            kept.append(part)
        else:
            first.guests.extend(part.modules)
    return kept
