"""What a unit may do in a step."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from lightning_attnbal.core._checks import check_integer


class LevelKind(StrEnum):
    """The kinds of level, from cheapest to dearest."""

    CACHED = "cached"
    FROZEN = "frozen"
    DETACHED = "detached"
    LOCAL = "local"
    LORA = "lora"
    FULL = "full"


@dataclass(frozen=True, slots=True)
class Level:
    """One setting of a unit: what it computes in a training step.

    | level    | forward        | gradients                                                      |
    |----------|----------------|----------------------------------------------------------------|
    | cached   | read, not run  | none                                                           |
    | frozen   | yes            | dX passes through if something below trains                    |
    | detached | yes            | none: the residual branches are cut, the skip path carries dX  |
    | local    | yes            | own dW; the branches are cut, the skip path carries dX         |
    | lora-r   | yes + adapter  | dX, adapter's dW                                               |
    | full     | yes            | dX, dW                                                         |

    Args:
        kind: what the unit does.
        rank: LoRA rank r in [1, inf) for kind `lora`, 0 for every other kind.

    Raises:
        ValueError: `rank` does not go with `kind`.

    Example:
        >>> Level.parse("lora8")
        Level(kind=<LevelKind.LORA: 'lora'>, rank=8)
        >>> str(Level.parse("lora8")), FROZEN.is_trained, FULL.passes_gradient
        ('lora8', False, True)
    """

    kind: LevelKind
    rank: int = 0

    def __post_init__(self) -> None:
        check_integer("rank", self.rank, low=0)
        if (self.kind is LevelKind.LORA) != (self.rank > 0):
            msg = (
                f"Expected `rank` to be at least 1 for lora and 0 otherwise, "
                f"but got {self.rank} for {self.kind}."
            )
            raise ValueError(msg)

    @classmethod
    def parse(cls, text: str | Level) -> Level:
        """Read a level from its name: `cached`, `frozen`, `detached`, `local`, `lora8`, `full`.

        Raises:
            ValueError: the name is not known.
        """
        if isinstance(text, Level):
            return text
        match = re.fullmatch(r"([a-z]+?)(\d*)", str(text).strip().lower())
        if match is None or match[1] not in set(LevelKind):
            known = ", ".join("lora<rank>" if k is LevelKind.LORA else k for k in LevelKind)
            msg = f"Expected `level` to be one of {known}, but got {text!r}."
            raise ValueError(msg)
        return cls(LevelKind(match[1]), int(match[2] or 0))

    @property
    def is_trained(self) -> bool:
        """Whether some parameter of the unit (or its adapter) moves."""
        return self.kind in {LevelKind.LOCAL, LevelKind.LORA, LevelKind.FULL}

    @property
    def passes_gradient(self) -> bool:
        """Whether dX is computed through the unit's own branches when something below trains."""
        return self.kind in {LevelKind.FROZEN, LevelKind.LORA, LevelKind.FULL}

    def __str__(self) -> str:
        return f"{self.kind.value}{self.rank}" if self.rank else self.kind.value


CACHED = Level(LevelKind.CACHED)
FROZEN = Level(LevelKind.FROZEN)
DETACHED = Level(LevelKind.DETACHED)
LOCAL = Level(LevelKind.LOCAL)
FULL = Level(LevelKind.FULL)


def lora(rank: int) -> Level:
    """The level that trains a LoRA adapter of `rank` in [1, inf) and freezes the rest.

    Example:
        >>> print(lora(4))
        lora4
    """
    return Level(LevelKind.LORA, rank)
