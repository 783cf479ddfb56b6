"""Which units can be detached, and if not, why."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from torch import nn

from lightning_attnbal.apply._branches import find_entrances
from lightning_attnbal.apply._calls import Call, record_calls, synthetic_call
from lightning_attnbal.apply._cut import Entrance
from lightning_attnbal.core import Unit, UnsupportedModelError

Branches = tuple[tuple[nn.Module, tuple[Entrance, ...]], ...]
"""Each block of a unit with the entrances of its residual branches."""


def find_branches(
    model: nn.Module, units: Iterable[Unit], forward: Callable[[], object] | None = None
) -> dict[str, Branches | str]:
    """By unit: its blocks and where their branches begin, or why it cannot be detached."""
    units = tuple(units)
    names = [name for unit in units for name in unit.modules]
    calls = None if forward is None else record_calls(model, names, forward)
    return {unit.name: _branches_of(model, unit, calls) for unit in units}


def _branches_of(model: nn.Module, unit: Unit, calls: Mapping[str, Call] | None) -> Branches | str:
    if not unit.modules:
        return "it has no module of its own"
    try:
        return tuple(_block(model, name, calls) for name in unit.modules)
    except UnsupportedModelError as reason:
        return str(reason)


def _block(
    model: nn.Module, name: str, calls: Mapping[str, Call] | None
) -> tuple[nn.Module, tuple[Entrance, ...]]:
    block = model.get_submodule(name)
    if calls is not None and name not in calls:
        msg = f"its module {name!r} was not called"
        raise UnsupportedModelError(msg)
    call = synthetic_call(block) if calls is None else calls[name]
    return block, find_entrances(block, call)


def why_not_detachable(
    model: nn.Module, unit: Unit, forward: Callable[[], object] | None = None
) -> str | None:
    """Why the residual branches of `unit` cannot be cut, or None if they can.

    A block computes y = s(x, f_1, f_2, ...), where the skip path s is made of sums, normalisation
    and elementwise operations, and the branches f_i hold the matrix products: y = x + f(norm(x))
    (pre-norm), y = norm(x + f(x)) (post-norm), y = relu(x + f(x)) (residual networks). Detached,
    the values are the same and dL/dx takes s only. The answer is found by structure and proven
    with numbers: see the method card.

    Args:
        model: holds the unit.
        unit: which part.
        forward: runs the model once on a real batch (in eval mode, without gradients), to try the
            unit on its true input; by default it is tried on made-up tokens or images, which do
            not fit blocks with unusual arguments.

    Source:
        Woo et al., "DropBP: Accelerating Fine-Tuning of Large Language Models by Dropping Backward
        Propagation", NeurIPS 2024 (branches drop at random at each step, written into the model's
        code); here a plan says which, and they are found automatically.

    Example:
        >>> from lightning_attnbal.core import Unit, UnitKind
        >>> layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        >>> model = nn.Sequential(layer, nn.Linear(8, 2))
        >>> block, head = (Unit(n, int(n), UnitKind.BLOCK, (n,), (), 0) for n in "01")
        >>> why_not_detachable(model, block) is None
        True
        >>> why_not_detachable(model, head)
        'no skip path leads from its first input to its output'
    """
    found = find_branches(model, [unit], forward)[unit.name]
    return found if isinstance(found, str) else None


def can_detach(model: nn.Module, unit: Unit, forward: Callable[[], object] | None = None) -> bool:
    """Whether the residual branches of `unit` can be cut; see `why_not_detachable`.

    Example:
        >>> from lightning_attnbal.core import Unit, UnitKind
        >>> model = nn.Sequential(nn.Linear(4, 4))
        >>> can_detach(model, Unit("0", 0, UnitKind.BLOCK, ("0",), (), 0))
        False
    """
    return why_not_detachable(model, unit, forward) is None
