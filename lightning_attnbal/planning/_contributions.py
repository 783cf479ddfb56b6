"""What training each unit is worth, from two batches, before any training."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor, nn
from torch.optim import Optimizer

from lightning_attnbal.core import Unit
from lightning_attnbal.measure import probe_contributions, run_model

Forward = Callable[[nn.Module, Any], Any]


@dataclass(frozen=True, slots=True)
class Contributions:
    """What training each unit is worth.

    Args:
        values: unit name → contribution, in [0, inf); units that cannot train are missing.
        loss: mean loss of the batches, NaN if there is none.
        source: where they come from, as a sentence.
    """

    values: dict[str, float]
    loss: float
    source: str


def contributions(
    model: nn.Module,
    units: Sequence[Unit],
    batches: tuple[Any, Any] | None,
    optimizer: Optimizer,
    forward: Forward | None = None,
) -> Contributions:
    """Debiased loss decrease per unit, from a pass over each of two batches; equal without a loss.

    Units whose gradient no loss reaches count as the mean of the others; negative estimates as 0.
    The model, gradients and random state are afterwards as before.

    Args:
        model: any module; weights that do not require a gradient count as never trained.
        units: forward order.
        batches: two that were drawn independently; None if there are not two.
        optimizer: in whose geometry a step is taken.
        forward: as for `profile`.
    """
    able = trainable_units(model, units)
    equal = dict.fromkeys((unit.name for unit in able), 1.0)
    if batches is None:
        return Contributions(equal, math.nan, "equal for all units: a single sample has no halves")
    seen: list[float] = []

    def loss(batch: Any) -> Tensor:
        found = run_model(model, batch, forward)
        if not isinstance(found, Tensor) or found.numel() != 1 or not found.requires_grad:
            raise _NoLossError(found)
        seen.append(float(found.detach()))
        return found

    try:
        found = probe_contributions(model, able, [partial(loss, b) for b in batches], [optimizer])
    except _NoLossError as error:
        return Contributions(equal, math.nan, f"equal for all units: {error}")
    known = {name: max(0.0, c.mean) for name, c in found.items() if math.isfinite(c.mean)}
    mean = sum(known.values()) / len(known) if known else 0.0
    values = {name: known.get(name, mean) for name in equal}
    if not any(values.values()):
        return Contributions(equal, sum(seen) / 2, "equal for all units: none was found")
    return Contributions(values, sum(seen) / 2, "measured on two batches")


def trainable_units(model: nn.Module, units: Sequence[Unit]) -> list[Unit]:
    """The units that may train, with those of their parameters that may."""
    may_train = {
        name for name, p in model.named_parameters(remove_duplicate=False) if p.requires_grad
    }
    cut = [
        replace(u, parameters=tuple(filter(may_train.__contains__, u.parameters))) for u in units
    ]
    return [unit for unit in cut if unit.parameters]


def halves(batch: Any) -> tuple[Any, Any] | None:
    """The first and the second half of the samples, None if there are fewer than two.

    Samples are the first dimension; what has another size there is shared by both.

    Example:
        >>> import torch
        >>> first, second = halves({"x": torch.arange(4), "scale": torch.ones(1)})
        >>> first["x"], second["x"], second["scale"]
        (tensor([0, 1]), tensor([2, 3]), tensor([1.]))
    """
    sizes: list[int] = []

    def note(tensor: Tensor) -> Tensor:
        if tensor.dim():
            sizes.append(len(tensor))
        return tensor

    apply_to_collection(batch, Tensor, note)
    most = max(sizes, default=0)
    if most < 2:
        return None

    def part(tensor: Tensor, rows: slice) -> Tensor:
        return tensor[rows] if tensor.dim() and len(tensor) == most else tensor

    half = most // 2
    first = apply_to_collection(batch, Tensor, part, rows=slice(0, half))
    return first, apply_to_collection(batch, Tensor, part, rows=slice(half, 2 * half))


class _NoLossError(Exception):
    """A forward pass gave no loss."""

    def __init__(self, found: Any) -> None:
        what = f"a {type(found).__name__}"
        if isinstance(found, Tensor):
            what = f"a tensor of shape {tuple(found.shape)}"
            if found.numel() == 1:
                what = "a loss without a gradient"
        super().__init__(f"the forward pass gave {what}, no loss")
