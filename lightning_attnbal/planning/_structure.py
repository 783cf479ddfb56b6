"""What can be told about a model by looking at it, without running it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence

from torch import nn

from lightning_attnbal.apply import PlanApplier
from lightning_attnbal.core import FROZEN, FULL, Plan, Unit, UnitKind, UnsupportedModelError
from lightning_attnbal.planning._contributions import trainable_units
from lightning_attnbal.planning._finding import Finding, Verdict

_MOST_NAMES = 3
_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
_DROPOUTS = (
    *(nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d),
    *(nn.AlphaDropout, nn.FeatureAlphaDropout),
)


def look_at_structure(model: nn.Module, units: Sequence[Unit]) -> Iterator[Finding]:
    """Units, parameters, ties, randomness and checkpointing."""
    yield _units(units)
    yield from _trainable(model, units)
    yield from _tied(model)
    yield from _stochastic(model, units)
    yield from _freezing(model, units)


def listed(names: Iterable[str]) -> str:
    """The first few names, and how many more there are.

    Example:
        >>> listed("abcde")
        'a, b, c and 2 more'
    """
    found = list(names)
    more = len(found) - _MOST_NAMES
    shown = ", ".join(found[:_MOST_NAMES])
    return f"{shown} and {more} more" if more > 0 else shown


def _units(units: Sequence[Unit]) -> Finding:
    kinds = Counter(unit.kind.value for unit in units)
    text = f"{len(units)} found: " + ", ".join(f"{n} {kind}" for kind, n in kinds.items()) + "."
    rest = [unit.name for unit in units if unit.kind is UnitKind.OTHER]
    if rest:
        text += f" Between or beside the blocks: {listed(rest)}."
    if len(units) < 2:
        return Finding(Verdict.LIMITED, "units", f"{text} With one there is nothing to choose.")
    if not kinds[UnitKind.BLOCK.value]:
        text += " No repeated blocks; name units yourself (`units=`) if these are too coarse."
        return Finding(Verdict.LIMITED, "units", text)
    return Finding(Verdict.FINE, "units", text)


def _trainable(model: nn.Module, units: Sequence[Unit]) -> Iterator[Finding]:
    parameters = list(model.parameters())
    total = sum(p.numel() for p in parameters)
    able = sum(p.numel() for p in parameters if p.requires_grad)
    text = f"{able:,} of {total:,} parameters may train."
    if not able:
        text += " Unfreeze what may be trained: set requires_grad."
        yield Finding(Verdict.REFUSED, "parameters", text)
        return
    may_train = {unit.name for unit in trainable_units(model, units)}
    still = [unit.name for unit in units if unit.name not in may_train]
    if still:
        text += f" You froze {listed(still)}; the balancer leaves that so."
    yield Finding(Verdict.NOTE if able < total else Verdict.FINE, "parameters", text)


def _tied(model: nn.Module) -> Iterator[Finding]:
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    tied = [" = ".join(same) for same in names.values() if len(same) > 1]
    if tied:
        text = f"{listed(tied)}. Each counts to the lowest unit that has it."
        yield Finding(Verdict.NOTE, "tied weights", text)


def _stochastic(model: nn.Module, units: Sequence[Unit]) -> Iterator[Finding]:
    """What behaves otherwise in eval mode, in units that may be frozen."""
    below = [unit for unit in units if unit.kind is not UnitKind.HEAD]
    inside = [m for u in below for name in u.modules for m in model.get_submodule(name).modules()]
    norms = sum(isinstance(m, _BATCH_NORMS) and m.track_running_stats for m in inside)
    if norms:
        text = f"{norms} batch norms below the head: they use running statistics while frozen."
        yield Finding(Verdict.NOTE, "batch norm", text)
    drops = sum(_drop_rate(module) > 0 for module in inside)
    if drops:
        text = f"{drops} dropouts below the head: off while frozen, which caching needs."
        yield Finding(Verdict.NOTE, "dropout", text)


def _drop_rate(module: nn.Module) -> float:
    if type(module).__name__ == "DropPath":
        return float(getattr(module, "drop_prob", 0.0) or 0.0)
    return module.p if isinstance(module, _DROPOUTS) else 0.0


def _freezing(model: nn.Module, units: Sequence[Unit]) -> Iterator[Finding]:
    """Whether the lowest unit can be frozen; the applier knows what stands against it."""
    able = [unit.name for unit in trainable_units(model, units)]
    if len(able) > 1:
        plan = Plan({u.name: FULL if u.name in able[1:] else FROZEN for u in units})
        reason = refusal(lambda: freeze_and_thaw(model, units, plan))
        if reason is not None:
            yield Finding(Verdict.REFUSED, "freezing", reason)
            return
    if any(getattr(module, "gradient_checkpointing", False) for module in model.modules()):
        text = "On, and not reentrant: it goes with frozen layers."
        yield Finding(Verdict.FINE, "activation checkpointing", text)


def freeze_and_thaw(model: nn.Module, units: Sequence[Unit], plan: Plan) -> None:
    """Set a plan and take it back.

    Raises:
        UnsupportedModelError: it cannot be set.
    """
    with PlanApplier(model, units) as applier:
        applier.apply(plan)


def refusal(call: Callable[[], object]) -> str | None:
    """What a call is refused with, None if it is not."""
    try:
        call()
    except UnsupportedModelError as reason:
        return str(reason)
    return None
