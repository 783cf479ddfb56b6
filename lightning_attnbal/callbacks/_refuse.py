"""What the balancer cannot run with, refused before training starts, with the reason."""

from __future__ import annotations

import math

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import GradientAccumulationScheduler
from lightning.pytorch.strategies import SingleDeviceStrategy
from torch import nn

from lightning_attnbal.allocate import Allocator, ForecastAllocator, FullAllocator
from lightning_attnbal.callbacks._task_settings import TaskSettings
from lightning_attnbal.core import Budget
from lightning_attnbal.multitask import TaskLoader


def refuse_unsupported(
    trainer: Trainer, model: nn.Module, kind: type[Callback], *, on_ranks: bool = False
) -> None:
    """Refuse a Trainer or model the balancer cannot balance.

    Args:
        trainer: of the fit.
        model: in training.
        kind: of the callback.
        on_ranks: whether tasks are dealt among several processes, see `refuse_ranks`.

    Raises:
        MisconfigurationException: names the setting, what was found and the remedy.
    """
    for applies, message in (
        (
            not trainer.lightning_module.automatic_optimization,
            "Expected `automatic_optimization` to be True, but got False: plans change between "
            "optimizer steps, which only Lightning knows when it takes them.",
        ),
        (
            not on_ranks
            and (trainer.world_size > 1 or not isinstance(trainer.strategy, SingleDeviceStrategy)),
            f"Expected one device, but got {type(trainer.strategy).__name__} with "
            f"{trainer.world_size} processes: a layer frozen behind a distributed wrapper is no "
            "longer synchronised. Use `Trainer(devices=1)`; tasks may be dealt among processes "
            "with `TaskSettings(parallel='ranks')`.",
        ),
        (
            bool(trainer.min_steps or trainer.min_epochs),
            f"Expected `min_epochs` and `min_steps` to be unset, but got {trainer.min_epochs} and "
            f"{trainer.min_steps}: a budget is an upper bound and may end the run before.",
        ),
        (
            sum(isinstance(callback, kind) for callback in _callbacks(trainer)) > 1,
            f"Expected one {kind.__name__} per Trainer, but got several.",
        ),
        (
            any(isinstance(c, GradientAccumulationScheduler) for c in _callbacks(trainer)),
            "Expected a constant `accumulate_grad_batches`, but got a "
            "GradientAccumulationScheduler: the cost of a step would change under the plan.",
        ),
        (
            any(type(m).__name__ == "OptimizedModule" for m in model.modules()),
            "Expected a model that is not compiled, but found torch.compile's wrapper: a compiled "
            "graph may keep a layer's old trainability. Compile after training, or not at all.",
        ),
    ):
        if applies:
            raise MisconfigurationException(message)


def full_run_batches(trainer: Trainer) -> int | None:
    """Batches of the user's own run: until `max_epochs` or `max_steps`; None if it has no end."""
    per_epoch = trainer.num_training_batches
    by_epochs = math.inf if trainer.max_epochs in {None, -1} else trainer.max_epochs * per_epoch
    by_steps = math.inf
    if trainer.max_steps != -1:
        by_steps = trainer.max_steps * trainer.accumulate_grad_batches
        if math.isfinite(per_epoch):
            by_steps = _batches_for_steps(trainer.max_steps, int(per_epoch), trainer)
    batches = min(by_epochs, by_steps)
    return None if math.isinf(batches) else int(batches)


def refuse_other_data(loader: TaskLoader | None, mode: str) -> None:
    """Tasks need a loader each, and one of the user's own has to serve them as is expected.

    Raises:
        MisconfigurationException: the training data is not a dict of loaders, or a `TaskLoader` of
            another mode.
    """
    if loader is None:
        msg = (
            "Expected the training data to be a dict of one DataLoader per task, but it is not. "
            "Return one from `train_dataloader`."
        )
        raise MisconfigurationException(msg)
    if loader.mode != mode:
        msg = (
            f"Expected the TaskLoader that is the training data to be of mode {mode!r} here, but "
            f"got {loader.mode!r}. Give a dict of the tasks' DataLoaders instead."
        )
        raise MisconfigurationException(msg)


def refuse_other_allocator(allocator: Allocator, tasks: TaskSettings | None) -> None:
    """Tasks that take turns have their plans decided together, by the forecast or not at all.

    Raises:
        ValueError: the allocator would not be asked.
    """
    if tasks is None or tasks.parallel == "heads" or isinstance(allocator, FullAllocator):
        return
    if not isinstance(allocator, ForecastAllocator):
        msg = (
            "Expected `allocator` to be a ForecastAllocator or FullAllocator where tasks take "
            f"turns, but got {type(allocator).__name__}: shares and plans are decided together. "
            "Leave it out, or serve all tasks at once with `TaskSettings(parallel='heads')`."
        )
        raise ValueError(msg)
    usual = ForecastAllocator()
    for name in ("hysteresis", "fits", "resolution"):
        value, unchanged = getattr(allocator, name), getattr(usual, name)
        if value != unchanged:
            msg = (
                f"Expected `{name}` of the ForecastAllocator to be {unchanged!r} where tasks take "
                f"turns, but got {value!r}: only `prior` and `thaw_margin` count there. Set "
                "`hysteresis` and `grid` of `TaskSettings`."
            )
            raise ValueError(msg)


def refuse_no_validation(trainer: Trainer, tasks: TaskSettings) -> None:
    """A metric that gains are to be counted in comes from a validation.

    Raises:
        MisconfigurationException: names the metrics of a run without validation.
    """
    if tasks.metrics and not trainer.enable_validation:
        named = ", ".join(repr(metric) for metric, _ in tasks.metrics.values())
        msg = (
            f"Expected a validation that logs what `metrics` name ({named}), but this run has "
            "none. Add `validation_step` and its data, or leave out `metrics`."
        )
        raise MisconfigurationException(msg)


def refuse_endless_share(budget: Budget, full_batches: int | None) -> None:
    """A share of a run without an end is no budget.

    Raises:
        MisconfigurationException: the budget is a share and the run has no end.
    """
    if budget.is_fraction and full_batches is None:
        msg = (
            f"Expected `max_epochs` or `max_steps` (and a training set of known length) with a "
            f"budget of {budget.limit}, but the full run has no end to take a share of. "
            "Set one, or give the budget as a time or a FLOP count."
        )
        raise MisconfigurationException(msg)


def _batches_for_steps(steps: int, per_epoch: int, trainer: Trainer) -> int:
    """Batches that `steps` optimizer steps take; an epoch's last step may have fewer batches."""
    steps_per_epoch = math.ceil(per_epoch / trainer.accumulate_grad_batches)
    epochs, rest = divmod(steps, steps_per_epoch)
    return epochs * per_epoch + rest * trainer.accumulate_grad_batches


def _callbacks(trainer: Trainer) -> list[Callback]:
    """The Trainer's callbacks; one function because Lightning attaches the list without a type."""
    return list(trainer.callbacks)  # type: ignore[attr-defined]  # set by Lightning's connector
