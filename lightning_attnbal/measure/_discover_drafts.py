"""From parts to units: blocks, and what lies before, between and after them."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from itertools import takewhile

from lightning_attnbal.core import UnitKind
from lightning_attnbal.measure._discover_groups import Group
from lightning_attnbal.measure._discover_parts import Part
from lightning_attnbal.measure._names import ancestors, last_component, sounds_like_stem


@dataclass(slots=True)
class Draft:
    """A unit before its name is made unique and readable.

    Args:
        kind: its role.
        parts: what belongs to it, in forward order.
        role: what it is called if no other unit is called so, or "".
        given: the name the user gave it, or "".
    """

    kind: UnitKind
    parts: list[Part] = field(default_factory=list)
    role: str = ""
    given: str = ""

    @property
    def name(self) -> str:
        """The user's name, or a qualified name made of its parts' names; unique.

        Example:
            >>> Draft(UnitKind.OTHER, [Part("encoder.norm", None), Part("encoder.proj", None)]).name
            'encoder.norm+proj'
        """
        first, *others = self.parts if self.kind is not UnitKind.BLOCK else self.parts[:1]
        joined = "+".join([first.name, *(last_component(part.name) for part in others)])
        return self.given or joined or "model"


def draft_units(parts: Sequence[Part], groups: Sequence[Group]) -> list[Draft]:
    """Group parts into units.

    Args:
        parts: the model in forward order.
        groups: the blocks.

    Returns:
        Units in the order of their first parts. All before the first block is one unit. All after
        the last block is one unit too, but for layers that are neither last nor called a head, and
        what precedes them. Between blocks there is a unit per layer, and one for the smaller parts
        of each container.

    Example:
        >>> from torch import nn
        >>> names = ("conv", "bn", "layer.0", "layer.1", "norm", "fc")
        >>> parts = [Part(name, nn.Linear(2, 2)) for name in names]
        >>> for draft in draft_units(parts, [Group(("layer.0",)), Group(("layer.1",))]):
        ...     print(draft.kind.value, repr(draft.role), [part.name for part in draft.parts])
        embedding 'stem' ['conv', 'bn']
        block '' ['layer.0']
        block '' ['layer.1']
        head 'head' ['norm', 'fc']
    """
    blocks = [_block_of(part, groups) for part in parts]
    start, stop = _bounds(parts, blocks)
    drafts: dict[Hashable, Draft] = {}
    if start > 0:
        drafts["first"] = Draft(UnitKind.EMBEDDING, [*parts[:start]], _first_role(parts[:start]))
    num_seen = 0
    for part, block in zip(parts[start:stop], blocks[start:stop], strict=True):
        num_seen += block is not None
        if block is None:
            key, new = _between_key(part, num_seen), _between(part)
        else:
            key, new = block, Draft(groups[block].kind, given=groups[block].name)
        drafts.setdefault(key, new).parts.append(part)
    if stop < len(parts):
        drafts["last"] = Draft(UnitKind.HEAD, [*parts[stop:]], "head")
    return list(drafts.values())


def _block_of(part: Part, groups: Sequence[Group]) -> int | None:
    """Which group a part is in, or None."""
    names = {part.name, *ancestors(part.name)}
    return next((i for i, group in enumerate(groups) if not names.isdisjoint(group.modules)), None)


def _bounds(parts: Sequence[Part], blocks: Sequence[int | None]) -> tuple[int, int]:
    """Where what precedes the blocks ends, and where the head begins."""
    found = [i for i, block in enumerate(blocks) if block is not None]
    if not found:
        num_embeddings = len(list(takewhile(lambda part: part.is_embedding, parts)))
        return num_embeddings, num_embeddings
    inner = range(found[-1] + 1, len(parts) - 1)
    layers = [i for i in inner if parts[i].is_layer and not parts[i].is_head]
    return found[0], max([found[-1], *layers]) + 1


def _first_role(parts: Sequence[Part]) -> str:
    is_embedding = any(part.is_embedding and not sounds_like_stem(part.name) for part in parts)
    return "embeddings" if is_embedding else "stem"


def _between(part: Part) -> Draft:
    return Draft(UnitKind.EMBEDDING if part.is_embedding else UnitKind.OTHER)


def _between_key(part: Part, num_seen: int) -> Hashable:
    """Layers are units by themselves, smaller neighbours in one container are one unit."""
    is_alone = part.is_layer and not part.is_embedding
    return part.name if is_alone else (num_seen, part.parent, part.is_embedding)
