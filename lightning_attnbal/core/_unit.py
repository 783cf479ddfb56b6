"""What gets compute, and what it costs."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum

from lightning_attnbal.core._checks import check_number
from lightning_attnbal.core._level import Level, LevelKind


class UnitKind(StrEnum):
    """The role of a unit in the model."""

    EMBEDDING = "embedding"
    BLOCK = "block"
    HEAD = "head"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Unit:
    """A part of the model that gets one level: a block, the embeddings, the head, ...

    Units partition the parameters: each parameter belongs to exactly one unit, tied parameters to
    the lowest.

    Args:
        name: readable and unique, such as `encoder.layer.3`.
        index: position in forward order, 0 nearest the input.
        kind: its role.
        modules: qualified names of the modules whose forward is this unit's, disjoint between
            units, none nested.
        parameters: qualified names of its parameters, as in `model.named_parameters()`.
        num_parameters: how many numbers those hold.

    Example:
        >>> unit = Unit("layer.0", 1, UnitKind.BLOCK, ("layer.0",), ("layer.0.weight",), 16)
        >>> unit.kind.value, unit.num_parameters
        ('block', 16)
    """

    name: str
    index: int
    kind: UnitKind
    modules: tuple[str, ...]
    parameters: tuple[str, ...]
    num_parameters: int


@dataclass(frozen=True, slots=True)
class PassCost:
    """What one unit costs in one step, split by what is computed, in FLOPs or in seconds.

    Freezing is not additive, hence four numbers and not three. With dX_in the gradient towards the
    unit's input and dX_mid the gradients inside it:

    | field            | what                | when it is paid                                    |
    |------------------|---------------------|----------------------------------------------------|
    | forward          | forward             | unless cached                                      |
    | own_backward     | dW + dX_mid         | trained, nothing below trains (or branches cut)    |
    | pass_backward    | dX_mid + dX_in      | frozen, something below trains                     |
    | full_backward    | dW + dX_mid + dX_in | trained, something below trains                    |
    | optimizer        | parameter update    | trained, once per optimizer step (0 in FLOPs)      |

    `side_input` is the part of `pass_backward` and `full_backward` that only serves inputs other
    than the main one (cross attention's keys and values): it falls away while nothing at or below
    `side_source` trains. `main_pass` and `main_full` are the parts of the two that only serve the
    main input: they fall away while only the side inputs need a gradient.

    Example:
        >>> cost = PassCost(forward=1.0, own_backward=1.5, pass_backward=1.0, full_backward=2.0)
        >>> cost.weight_grad, cost.input_grad
        (1.0, 0.5)
    """

    forward: float = 0.0
    own_backward: float = 0.0
    pass_backward: float = 0.0
    full_backward: float = 0.0
    optimizer: float = 0.0
    side_input: float = 0.0
    side_source: int = -1
    main_pass: float = 0.0
    main_full: float = 0.0

    def with_backward_times(self, factor: float) -> PassCost:
        """The same with everything backward `factor` times as dear, in [0, inf).

        Example:
            >>> PassCost(forward=1.0, own_backward=1.5).with_backward_times(2.0).own_backward
            3.0
        """
        check_number("factor", factor, low=0)
        names = (
            "own_backward",
            "pass_backward",
            "full_backward",
            "side_input",
            "main_pass",
            "main_full",
        )
        return replace(self, **{name: factor * getattr(self, name) for name in names})

    @property
    def weight_grad(self) -> float:
        """Weight-gradient cost dW."""
        return max(0.0, self.full_backward - self.pass_backward)

    @property
    def input_grad(self) -> float:
        """Cost of the gradient towards the unit's input, dX_in."""
        return max(0.0, self.full_backward - self.own_backward)

    @property
    def total(self) -> float:
        """Cost when everything trains."""
        return self.forward + self.full_backward + self.optimizer

    def at(self, level: Level, *, below: bool) -> float:
        """Cost at `level`, where `below` says whether some unit below trains.

        LoRA adapters are priced by whoever injects them; here `lora` costs what passing the
        gradient does.

        Example:
            >>> from lightning_attnbal.core import DETACHED, FROZEN, FULL
            >>> cost = PassCost(forward=1.0, own_backward=1.5, pass_backward=1.0, full_backward=2.0)
            >>> [cost.at(level, below=True) for level in (FROZEN, DETACHED, FULL)]
            [2.0, 1.0, 3.0]
        """
        forward = 0.0 if level.kind is LevelKind.CACHED else self.forward
        if level.kind in {LevelKind.CACHED, LevelKind.DETACHED}:
            return forward
        if level.kind in {LevelKind.FROZEN, LevelKind.LORA}:
            return forward + (self.pass_backward if below else 0.0)
        through = below and level.passes_gradient
        return forward + (self.full_backward if through else self.own_backward) + self.optimizer


@dataclass(frozen=True, slots=True)
class UnitLoad:
    """The cost half of a unit's cognitive load, for one batch.

    Args:
        unit: which unit.
        flops: FLOPs per batch (2 per multiply-add).
        seconds: seconds per batch, None until measured.
        saved_bytes: activations autograd keeps for the backward pass when everything trains.
        parameter_bytes: its parameters.
        optimizer_bytes: optimizer state for its parameters (0 until known).
        boundary_bytes: what units above it read from it and from those below: the size of a batch
            in a cache that ends here.
        can_detach: whether its residual branches can be cut.
        predecessors: indices of the units whose output this one reads.

    Example:
        >>> unit = Unit("head", 0, UnitKind.HEAD, ("head",), ("head.weight",), 4)
        >>> load = UnitLoad(unit, flops=PassCost(forward=8.0, own_backward=8.0, full_backward=16.0))
        >>> load.flops.total
        24.0
    """

    unit: Unit
    flops: PassCost
    seconds: PassCost | None = None
    saved_bytes: int = 0
    parameter_bytes: int = 0
    optimizer_bytes: int = 0
    boundary_bytes: int = 0
    can_detach: bool = False
    predecessors: tuple[int, ...] = field(default=())
