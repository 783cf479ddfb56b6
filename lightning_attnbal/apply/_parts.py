"""The parameters and modules of a unit, as objects of the model."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

from lightning_attnbal.core import Unit


def listed(names: Iterable[str]) -> str:
    """Names for a message.

    Example:
        >>> print(listed(["b", "a"]), listed([]))
        'a', 'b' none
    """
    return ", ".join(map(repr, sorted(names))) or "none"


def trainable_parameters(model: nn.Module, unit: Unit) -> tuple[nn.Parameter, ...]:
    """Those of the unit's parameters that require a gradient.

    Raises:
        ValueError: a parameter of the unit is not in the model.
    """
    known = dict(model.named_parameters(remove_duplicate=False))
    _refuse_unknown("parameters", unit, unit.parameters, known.keys())
    return tuple(known[name] for name in unit.parameters if known[name].requires_grad)


def stochastic_modules(model: nn.Module, unit: Unit) -> tuple[nn.Module, ...]:
    """The modules that go to eval mode with the unit, nested ones included.

    The own flag of `nn.TransformerEncoderLayer` stays as it is: it only guards PyTorch's fused
    inference path, on which `nn.TransformerEncoder` turns padded batches into nested tensors that
    trained layers above cannot read.

    Raises:
        ValueError: a module of the unit is not in the model.
    """
    known = dict(model.named_modules(remove_duplicate=False))
    _refuse_unknown("modules", unit, unit.modules, known.keys())
    inside = (module for name in unit.modules for module in known[name].modules())
    return tuple(m for m in inside if type(m) is not nn.TransformerEncoderLayer)


def _refuse_unknown(what: str, unit: Unit, names: Iterable[str], known: Iterable[str]) -> None:
    unknown = set(names) - set(known)
    if unknown:
        msg = (
            f"Expected the {what} of unit {unit.name!r} to be in the model, "
            f"but got {listed(unknown)}."
        )
        raise ValueError(msg)
