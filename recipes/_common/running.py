"""A run: what it is made of, how it goes, and what it leaves."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from importlib import import_module
from pathlib import Path
from statistics import mean
from typing import Any, Literal

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import ModelCheckpoint, RichProgressBar
from lightning.pytorch.callbacks.callback import Callback
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger
from rich.box import SIMPLE_HEAD
from rich.table import Table

from lightning_attnbal import AttentionBalancer
from lightning_attnbal.allocate import FullAllocator
from lightning_attnbal.callbacks import TaskSettings
from lightning_attnbal.tracking.report import write_report
from recipes._common.composing import build
from recipes._common.config import AllocatorName, LoggerName, Parallel, TrainConfig
from recipes._common.data import TasksData
from recipes._common.module import TasksModule
from recipes._common.processor import warn_of_slow_precision
from recipes._common.random_state import RandomState
from recipes._common.restrict import merge_adapters, restrict


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run cost and reached.

    Args:
        recipe: its recipe.
        budget: as it was given.
        allowed: the same in FLOPs or seconds; "" without a balancer.
        spent: what was spent, in the same dimension.
        flops: FLOPs of the training steps and of all that was computed beside them.
        seconds: wall-clock time of the fit, validation included.
        steps: optimizer steps.
        shares: task → share of the batches, where tasks took turns.
        scores: task/metric → value on the test rows.
        headline: task → the metric it is judged by.
        baselines: name → task/metric → value.
    """

    recipe: str
    budget: str
    allowed: str
    spent: str
    flops: float
    seconds: float
    steps: int
    shares: Mapping[str, float]
    scores: Mapping[str, float]
    headline: Mapping[str, str]
    baselines: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    @property
    def judged(self) -> dict[str, float]:
        """Task → value of its headline metric."""
        return {task: self.scores[f"{task}/{metric}"] for task, metric in self.headline.items()}


@dataclass(frozen=True, slots=True)
class Parts:
    """What a run is made of."""

    data: TasksData
    module: TasksModule
    trainer: pl.Trainer
    balancer: AttentionBalancer | None


def assemble(config: TrainConfig, out: Path, allowed: Collection[str]) -> Parts:
    """Load the data and make model, balancer and Trainer; nothing is trained yet.

    Args:
        config: of the run.
        out: folder of all that it leaves.
        allowed: what `_target_` may name.

    Raises:
        FetchError: data or weights cannot be had.
        ValueError: a value is outside its range.
    """
    if config.trainer.threads is not None:
        torch.set_num_threads(config.trainer.threads)
    balancer_settings = config.balancer
    data: TasksData = build(config.data, allowed)
    data.setup()
    pl.seed_everything(config.seed, workers=True, verbose=False)
    module: TasksModule = build(config.model, allowed, data)
    restrict(module, balancer_settings.train, balancer_settings.lora_rank)
    options = asdict(config.trainer)
    del options["threads"]
    options |= {name: str(options[name]) for name in ("accelerator", "precision")}
    trainer = pl.Trainer(
        **options,
        callbacks=make_callbacks(config, out),
        logger=make_loggers(config, out),
        default_root_dir=out,
        enable_checkpointing=config.callbacks.checkpoint,
        enable_progress_bar=config.callbacks.progress_bar,
        enable_model_summary=config.callbacks.summary,
    )
    warn_of_slow_precision(options["precision"], trainer.strategy.root_device)
    balancer = None
    if balancer_settings.enabled:
        balancer = make_balancer(config, data, trainer.world_size)
        callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
        callbacks.insert(0, balancer)
    return Parts(data, module, trainer, balancer)


def make_balancer(config: TrainConfig, data: TasksData, num_processes: int) -> AttentionBalancer:
    """The balancer that `balancer=` describes, for so many processes."""
    options = config.balancer
    parallel: Any = options.parallel.value  # one of the names that TaskSettings knows
    if options.parallel is Parallel.auto:
        alone = "heads" if data.same_samples else "off"
        parallel = "ranks" if num_processes > 1 else alone
    settings = TaskSettings(
        objective=options.objective.value,
        reach=options.reach,
        epoch_batches=options.epoch_batches,
        same_samples=data.same_samples,
        parallel=parallel,
    )
    return AttentionBalancer(
        config.budget,
        memory=options.memory,
        levels=[level.value for level in options.levels],
        allocator=FullAllocator() if options.allocator is AllocatorName.full else None,
        lr_schedule=options.lr_schedule.value,
        warmup=options.warmup,
        seed=config.seed,
        tasks=settings if options.tasks and len(data.tasks) > 1 else None,
    )


def make_callbacks(config: TrainConfig, out: Path) -> list[Callback]:
    """Checkpoints and progress bar, as far as they are wanted."""
    callbacks: list[Callback] = []
    if config.callbacks.checkpoint:
        folder = out / "checkpoints"
        callbacks.append(ModelCheckpoint(folder, filename="last", enable_version_counter=False))
        callbacks.append(RandomState())
    if config.callbacks.progress_bar:
        callbacks.append(RichProgressBar())
    return callbacks


def make_loggers(config: TrainConfig, out: Path) -> list[Logger]:
    """Lightning's loggers, each in the folder of the run."""
    made: list[Logger] = []
    for name, options in config.logger.items():
        if name is LoggerName.csv:
            made.append(CSVLogger(out, name="", version=""))
        elif name is LoggerName.tensorboard:
            made.append(TensorBoardLogger(out, name="", version=""))
        else:
            made.append(WandbLogger(name=out.name, save_dir=out, project=options.project))
    return made


def run(config: TrainConfig, parts: Parts, out: Path) -> Outcome:
    """Fit, test, and write model, report and results to `out`.

    An exception leaves the last checkpoint, from which `ckpt_path` goes on.
    """
    trainer, module, balancer = parts.trainer, parts.module, parts.balancer
    trainer.fit(module, datamodule=parts.data, ckpt_path=config.ckpt_path, weights_only=True)
    tested = trainer.test(module, datamodule=parts.data, verbose=False) if config.test else []
    outcome = Outcome(
        recipe=config.recipe,
        budget=config.budget if balancer else "",
        allowed=str(balancer.limit) if balancer else "",
        spent=str(balancer.spent) if balancer else "",
        flops=balancer.flops.amount if balancer else 0.0,
        seconds=balancer.seconds.amount if balancer else 0.0,
        steps=trainer.global_step,
        shares=dict(balancer.shares) if balancer else {},
        scores={k.removeprefix("test/"): v for part in tested for k, v in part.items()},
        headline=dict(module.headline) if config.test else {},
        baselines=parts.data.baselines() if config.baselines else {},
    )
    if trainer.is_global_zero:
        merge_adapters(module)
        module.save_pretrained(out / "model")
        _write(out / "results.json", asdict(outcome))
        if balancer is not None:
            write_report({"run": balancer.events}, out / "report.html")
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            logger.experiment.finish()  # else the next run of a sweep would go on in this one
    return outcome


def _write(path: Path, content: Mapping[str, Any]) -> None:
    part = path.with_suffix(".part")
    part.write_text(json.dumps(content, indent=2), encoding="utf-8")
    part.replace(path)


def outcome_table(outcome: Outcome) -> Table:
    """The test scores, a row per task; baselines below them."""
    rows = {"": outcome.scores, **outcome.baselines}
    pairs = {key: key.rpartition("/") for scores in rows.values() for key in scores}
    metrics = list(dict.fromkeys(metric for _, _, metric in pairs.values()))
    tasks = list(dict.fromkeys(task for task, _, _ in pairs.values()))
    cost = f": {outcome.spent} of {outcome.allowed}" if outcome.spent else ""
    table = Table(title=f"{outcome.recipe}{cost}, {outcome.steps} steps", box=SIMPLE_HEAD)
    for heading in ("", "task", *metrics):
        side: Literal["left", "right"] = "left" if heading in ("", "task") else "right"
        table.add_column(heading, justify=side, overflow="fold")
    for name, scores in rows.items():
        for task in tasks:
            cells = [scores.get(f"{task}/{metric}") for metric in metrics]
            if any(cell is not None for cell in cells):
                texts = ["" if cell is None else f"{cell:.3f}" for cell in cells]
                table.add_row(name or "this run", task, *texts)
    if outcome.judged:
        worst, whole = min(outcome.judged.values()), mean(outcome.judged.values())
        table.caption = f"headline metrics: mean {whole:.3f}, worst task {worst:.3f}"
    return table


def recipe_package(recipe: str, known: Mapping[str, str]) -> Any:
    """The package of a recipe, imported only if it is a known one.

    Raises:
        ValueError: there is no such recipe.
    """
    if recipe not in known:
        names = ", ".join(map(repr, known))
        msg = f"Expected the recipe to be one of {names}, but got {recipe!r}."
        raise ValueError(msg)
    return import_module(known[recipe])
