"""From units to their parameters, and from parameters to their learning rates, by identity."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import Tensor, nn
from torch.optim import Optimizer

from lightning_attnbal.core import Unit

Copies = dict[str, list[tuple[nn.Parameter, Tensor]]]
"""Per unit its parameters, each with a tensor of the same shape."""


def unit_parameters(model: nn.Module, units: Iterable[Unit]) -> dict[str, list[nn.Parameter]]:
    """The parameters of each unit, each once, though tied ones may have several names.

    Example:
        >>> from lightning_attnbal.core import UnitKind
        >>> model = nn.Linear(2, 1)
        >>> unit = Unit("head", 0, UnitKind.HEAD, ("",), ("weight", "bias"), 3)
        >>> [p.shape for p in unit_parameters(model, [unit])["head"]]
        [torch.Size([1, 2]), torch.Size([1])]
    """
    by_name = dict(model.named_parameters(remove_duplicate=False))
    return {
        unit.name: list({id(by_name[n]): by_name[n] for n in unit.parameters}.values())
        for unit in units
    }


def learning_rates(optimizers: Sequence[Optimizer]) -> dict[int, float]:
    """Learning rate by the identity of the parameter.

    Example:
        >>> weight = nn.Parameter(nn.Linear(1, 1).weight)
        >>> learning_rates([__import__("torch").optim.SGD([weight], lr=0.1)])[id(weight)]
        0.1
    """
    return {id(p): float(g["lr"]) for o in optimizers for g in o.param_groups for p in g["params"]}


def copy_weights(parameters: dict[str, list[nn.Parameter]]) -> Copies:
    """Copies of the weights of every parameter that has a gradient, and so is about to move.

    Example:
        >>> weight = nn.Linear(1, 1).weight
        >>> copy_weights({"head": [weight]})
        {'head': []}
    """
    return {
        name: [(p, p.detach().clone()) for p in those if p.grad is not None]
        for name, those in parameters.items()
    }
