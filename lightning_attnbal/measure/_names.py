"""What the name of a module says about its role, and how units are called in tables."""

from __future__ import annotations

import re
from collections.abc import Iterator

_EMBEDDING = re.compile(r"embed|token|stem|patch|^shared$|(^|_)(wte|wpe|pos|cls|mask)(_|$)")
_STEM = re.compile(r"^(?!.*embed).*(stem|patch)")
_HEAD = re.compile(
    r"(.*_)?(heads?|fc|classifiers?|logits?|logit_(scale|bias)|embed_out|predictions?"
    r"|outputs?|scorer?|pooler|cls|ln_f|norm_f|(final|last)_.*norm)"
)


def last_component(name: str) -> str:
    """What a module is called inside its parent.

    Example:
        >>> last_component("bert.encoder.layer")
        'layer'
    """
    return name.rpartition(".")[2]


def parent_of(name: str) -> str:
    """Qualified name of the enclosing module, "" for the model itself.

    Example:
        >>> parent_of("bert.encoder.layer"), parent_of("bert")
        ('bert.encoder', '')
    """
    return name.rpartition(".")[0]


def sounds_like_head(name: str) -> bool:
    """Whether a module or parameter of this name usually runs after the blocks beside it.

    Example:
        >>> [sounds_like_head(name) for name in ("lm_head", "bert.pooler", "header", "norm")]
        [True, True, False, False]
    """
    return _HEAD.fullmatch(last_component(name).lower()) is not None


def sounds_like_embedding(name: str) -> bool:
    """Whether a module or parameter of this name usually runs before the blocks beside it.

    Example:
        >>> names = "pos_embed", "stem", "model.wte", "conv1", "embed_out"
        >>> [sounds_like_embedding(name) for name in names]
        [True, True, True, False, False]
    """
    component = last_component(name).lower()
    return _EMBEDDING.search(component) is not None and not sounds_like_head(name)


def sounds_like_stem(name: str) -> bool:
    """Whether the name stands for a convolutional stem rather than for embeddings.

    Example:
        >>> [sounds_like_stem(n) for n in ("stem", "patch_embed", "embeddings")]
        [True, False, False]
    """
    return _STEM.search(last_component(name).lower()) is not None


def ancestors(name: str) -> Iterator[str]:
    """Qualified names of all enclosing modules, innermost first, the model itself ("") last.

    Example:
        >>> list(ancestors("bert.encoder.layer"))
        ['bert.encoder', 'bert', '']
    """
    while name:
        name = parent_of(name)
        yield name
