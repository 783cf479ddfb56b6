"""BAdam: one block at a time under the user's optimizer, by the package `badam`."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Any, Literal

import lightning.pytorch as pl
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch import nn
from torch.optim import Optimizer
from typing_extensions import override

from lightning_attnbal.core import Unit, check_choice, check_integer
from lightning_attnbal.measure import discover_units
from recipes.benchmarks.compare.methods._method import (
    Method,
    blocks_of,
    has_trainable,
    heads_of,
)
from recipes.benchmarks.compare.methods._optional import require

if TYPE_CHECKING:
    from collections.abc import Iterator

_MODES = ("random", "ascending", "descending", "fixed")


@dataclass(frozen=True, kw_only=True)
class BAdam(Method):
    """Blocks take turns of `period` steps; moments start afresh at each turn; the head always on.

    Args:
        period: K, optimizer steps per turn, in [1, inf).
        order: "random", "ascending", "descending" or "fixed" (the top block only).

    Raises:
        ModuleNotFoundError: in `prepare`, without the package `badam`.

    Source:
        Luo, Yu, Li, "BAdam: A Memory Efficient Full Parameter Optimization Method for Large
        Language Models", NeurIPS 2024, by the authors' package.
    """

    period: int = 50
    order: Literal["random", "ascending", "descending", "fixed"] = "descending"

    def __post_init__(self) -> None:
        check_integer("period", self.period, low=1)
        check_choice("order", self.order, _MODES)

    @property
    @override
    def name(self) -> str:
        return f"badam-{self.order}-{self.period}"

    @override
    def prepare(self, module: pl.LightningModule) -> None:
        """Have the module's optimizer wrapped when it is made."""
        badam = require("badam")
        original = module.configure_optimizers

        @wraps(original)
        def configure_optimizers() -> Optimizer:
            return self._wrap(badam, module, _single(original()))

        module.__dict__["configure_optimizers"] = configure_optimizers

    def _wrap(self, badam: Any, module: pl.LightningModule, base: Optimizer) -> Optimizer:
        units = discover_units(module)
        blocks = [unit for unit in blocks_of(units) if has_trainable(module, unit)]
        with _quiet():
            inner = badam.BlockOptimizer(
                base,
                named_parameters_list=_tagged(module, units),
                block_prefix_list=[[_tag(unit)] for unit in blocks],
                switch_block_every=self.period,
                switch_mode=self.order,
                start_block=len(blocks) - 1 if self.order == "fixed" else None,
                active_modules=[_tag(unit) for unit in heads_of(units)],
                verbose=0,
            )
        return StepAfterClosure(inner, base)


class StepAfterClosure(Optimizer):
    """Makes badam's optimizer one that Lightning can drive.

    Lightning computes the gradients in a closure that the optimizer calls; badam's wants them
    before. Its parameter groups come and go; here is one for the whole run.

    Args:
        inner: badam's optimizer.
        base: the user's; gives the learning rate.
    """

    def __init__(self, inner: Any, base: Optimizer) -> None:
        parameters = [parameter for _, parameter in inner.named_parameters_list]
        super().__init__([{"params": parameters}], {"lr": base.defaults["lr"]})
        self._inner = inner

    @override
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        with torch.enable_grad():
            loss = None if closure is None else closure()
        if all(p.grad is None for group in self.param_groups for p in group["params"]):
            return loss
        self._inner.param_groups[0]["lr"] = self.param_groups[0]["lr"]
        with _quiet():
            self._inner.step()
        return loss


def _tag(unit: Unit) -> str:
    """Badam matches parts of names, where block 1 would match block 10."""
    return f"<{unit.index}>"


def _tagged(module: nn.Module, units: Sequence[Unit]) -> list[tuple[str, nn.Parameter]]:
    """What may be trained, under names that begin with their unit's tag."""
    parameters = dict(module.named_parameters())
    return [
        (f"{_tag(unit)}{name}", parameters[name])
        for unit in units
        for name in unit.parameters
        if parameters[name].requires_grad
    ]


def _single(configured: Any) -> Optimizer:
    if isinstance(configured, Optimizer):
        return configured
    msg = (
        "Expected `configure_optimizers` to return one optimizer, "
        f"but got {type(configured).__name__}."
    )
    raise MisconfigurationException(msg)


@contextmanager
def _quiet() -> Iterator[None]:
    """Badam prints each switch, and warns of float32 weights, which we want."""
    with redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
